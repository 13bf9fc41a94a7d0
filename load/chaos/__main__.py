"""Faults on a real Apache Kafka that it starts (Java 17), each run judged by the checker.

    python -m load.chaos --out FOLDER [--fault NAME ...] [--seeds 3] [--docs docs/chaos.md]

It ends with 1 when the promise was broken. Each run's files are in a folder of its own there.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from rich.console import Console

from headrace_load.workload.texts import load_texts
from load.chaos.cluster import Cluster, cluster
from load.chaos.fault import Fault
from load.chaos.faults import ALL
from load.chaos.run import Outcome, run
from load.chaos.sequence import sequence
from load.chaos.stream import TEXTS
from load.chaos.table import summary, table, write_docs
from load.growth import Point, made_artifact

SEQUENCES = tuple(sequence(ALL, nodes) for nodes in (1, 3))


async def main(options: argparse.Namespace, console: Console) -> bool:
    """All runs; whether all kept the promise."""
    begun = time.monotonic()
    faults = [fault for fault in (*ALL, *SEQUENCES) if not options.fault or fault.name in options.fault]
    outcomes: list[Outcome] = []
    model = options.out / "model.safetensors"
    made_artifact(load_texts(TEXTS, 0), Point(words=TEXTS.words), model)
    for number, together in enumerate(_by_cluster(faults)):
        where = options.out / f"kafka-{number}"
        where.mkdir()
        async with cluster(together[0].nodes, where, together[0].server) as found:
            for fault in together:
                for seed in range(options.seeds):
                    outcome = await _once(fault, seed, found, model, options.out)
                    outcomes.append(outcome)
                    _tell(console, outcome)
        (options.out / "outcomes.json").write_bytes(msgspec.json.format(msgspec.json.encode(outcomes)))
    text = f"{summary(outcomes, time.monotonic() - begun)}\n\n{table(faults, outcomes)}"
    (options.out / "table.md").write_text(text + "\n", encoding="utf-8")
    if options.docs is not None:
        write_docs(options.docs, text)
    console.print(text, soft_wrap=True, markup=False)
    return all(outcome.error is None for outcome in outcomes)


async def _once(fault: Fault, seed: int, found: Cluster, model: Path, out: Path) -> Outcome:
    folder = out / f"{fault.name}-{seed}"
    folder.mkdir()
    return await run(fault, seed, found, model=model, folder=folder)


def _by_cluster(faults: Sequence[Fault]) -> Iterator[list[Fault]]:
    """Faults that can share a cluster; one with server settings has a cluster of its own."""
    for nodes in (1, 3):
        if shared := [fault for fault in faults if fault.nodes == nodes and fault.server is None]:
            yield shared
    yield from ([fault] for fault in faults if fault.server is not None)


def _tell(console: Console, outcome: Outcome) -> None:
    said = [outcome.error or "kept", *([outcome.checked.line()] if outcome.checked else []), *outcome.notes]
    lines = [
        f"{outcome.fault} {outcome.seed} ({outcome.seconds:.0f} s): {said[0]}",
        *(f"    {line}" for line in said[1:]),
    ]
    console.print("\n".join(lines), soft_wrap=True, markup=False)


def parse() -> argparse.Namespace:
    """Read the command line."""
    names = [fault.name for fault in (*ALL, *SEQUENCES)]
    parser = argparse.ArgumentParser(prog="python -m load.chaos", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    parser.add_argument("--fault", nargs="*", choices=names, metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each fault")
    parser.add_argument("--docs", type=Path, help="a page whose table is written anew")
    return parser.parse_args()


if __name__ == "__main__":
    asked = parse()
    asked.out.mkdir(parents=True)
    sys.exit(0 if asyncio.run(main(asked, Console(highlight=False))) else 1)
