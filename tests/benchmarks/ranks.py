"""Time and accuracy of a training by one rank and by two, of one thread each, on this machine.

    python -m tests.benchmarks.ranks FOLDER/ag_news [--seeds 0,1] [--ranks 1,2] [--budget 0.5]

FOLDER/ag_news has train.jsonl, test.jsonl and perhaps train_extra.jsonl, which is trained on too. Ranks are started as
the trainer starts them; contenders alternate. Seconds are those of rank 0 from reading to the end; the
validation rows end a search when they no longer gain by it, so a training has more or fewer epochs, and an epoch's time
compares without that luck.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from headrace.commands.trainer import allowing
from headrace.learning.compress.curve import Budget
from headrace.learning.distributed.job import FileSource, Job
from headrace.learning.distributed.launch import launch
from headrace.learning.fit.hyperparameters import Recipe
from headrace.model.places import places_of
from headrace.security.private_folder import PrivateFolder


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One training: accuracy in [0, 1] of the artifact and of the fp32 original on the test rows.

    ``epoch_s``: the median time from one epoch of the search to the next, its judgement and its checkpoint included.
    """

    seconds: float
    epoch_s: float
    epochs: int
    accuracy: float
    float_accuracy: float


async def train(ranks: int, source: FileSource, seed: int, budget: Budget | None) -> Run:
    seen: Counter[str] = Counter()
    ends: list[float] = []

    def count(said: Mapping[str, Any]) -> None:
        seen[said["event"]] += 1
        if said["event"] == "training.epoch":
            ends.append(time.monotonic())

    with tempfile.TemporaryDirectory() as folder:
        job = Job(
            id=f"ranks-{ranks}-seed-{seed}",
            source=source,
            recipe=Recipe(seed=seed),
            budget=budget,
            checkpoints=folder,
            out=folder,
        )
        places = places_of((folder,))
        outcome = await launch(
            job,
            ranks=ranks,
            program=["headrace", "--set", allowing(places)],
            environ=os.environ,
            folder=PrivateFolder(Path(folder)),
            places=places,
            on_event=count,
        )
    return Run(
        seconds=outcome.seconds,
        epoch_s=statistics.median(after - before for before, after in pairwise(ends)),
        epochs=seen["training.epoch"] + seen["training.refit"],
        accuracy=outcome.report.accuracy,
        float_accuracy=outcome.float_report.accuracy,
    )


def joined(place: Path, folder: Path) -> FileSource:
    """All training rows in one file."""
    parts = [place / "train.jsonl", place / "train_extra.jsonl"]
    data = folder / "train.jsonl"
    data.write_bytes(b"".join(part.read_bytes() for part in parts if part.exists()))
    valid = place / "dev.jsonl"
    return FileSource(data=str(data), valid=str(valid) if valid.exists() else None, test=str(place / "test.jsonl"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("place", type=Path)
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--ranks", default="1,2")
    parser.add_argument("--budget", type=float, default=0.0, help="of compression; 0 trains only")
    options = parser.parse_args()
    console = Console() if sys.stdout.isatty() else Console(width=120)
    worlds = [int(ranks) for ranks in options.ranks.split(",")]
    runs: dict[int, list[Run]] = {world: [] for world in worlds}
    budget = Budget(points=options.budget) if options.budget else None
    with tempfile.TemporaryDirectory() as folder:
        source = joined(options.place, Path(folder))
        for seed in map(int, options.seeds.split(",")):
            for world in worlds:
                run = asyncio.run(train(world, source, seed, budget))
                console.print(f"seed {seed}, {world} ranks: {run}", soft_wrap=True)
                runs[world].append(run)
    table = Table("ranks", title=f"{options.place.name}, {len(runs[worlds[0]])} seeds, means")
    for name in ("seconds", "epochs", "s an epoch", "times faster", "an epoch", "int8 %", "fp32 %"):
        table.add_column(name, justify="right")

    def mean(world: int, field: str) -> float:
        return statistics.fmean(getattr(run, field) for run in runs[world])

    first = worlds[0]
    for world in worlds:
        pace = mean(world, "epoch_s")
        table.add_row(
            str(world),
            f"{mean(world, 'seconds'):.1f}",
            f"{mean(world, 'epochs'):.1f}",
            f"{pace:.2f}",
            f"{mean(first, 'seconds') / mean(world, 'seconds'):.2f}",
            f"{mean(first, 'epoch_s') / pace:.2f}",
            f"{100 * mean(world, 'accuracy'):.2f}",
            f"{100 * mean(world, 'float_accuracy'):.2f}",
        )
    console.print(table)


if __name__ == "__main__":
    main()
