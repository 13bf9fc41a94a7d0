"""The two artifacts of the table, trained on one data set: the network that all contenders share, and a champion.

    python -m load.peers.artifacts --data FOLDER --out FOLDER

The data's folder has train.jsonl and test.jsonl. `full.safetensors` has 128 dimensions and 100 filters of each of the
widths 2, 3 and 4, and nothing is pruned; `champion.safetensors` is what `headrace train` makes by default. Speed does
not depend on how well the first is trained, so it gets three epochs.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

# BLAS threads beside those of the training make both slower. It is read when numpy loads.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import msgspec

from headrace.learning.data.split import Splits
from headrace.learning.distributed.collectives import Alone
from headrace.learning.distributed.job import FileSource, Job, read_outcome
from headrace.learning.distributed.rank import run
from headrace.learning.fit.hyperparameters import adapted
from headrace.model.artifact import load, save
from headrace.model.places import places_of

FILTERS = 100
EPOCHS = 3


def train_full(data: Path, out: Path) -> None:
    """Train the network that all contenders share."""
    recipe = adapted(seed=0, epochs=EPOCHS)
    recipe = msgspec.structs.replace(recipe, convolution=msgspec.structs.replace(recipe.convolution, filters=FILTERS))
    source = FileSource(
        data=str(data / "train.jsonl"),
        valid=None,
        test=str(data / "test.jsonl"),
        text_column="text",
        label_column="label",
    )
    with tempfile.TemporaryDirectory(prefix="headrace-peers-") as folder:
        splits = Splits()
        job = Job(
            id="full",
            source=source,
            recipe=recipe,
            checkpoints=folder,
            out=folder,
            budget=None,
            accept=None,
            split=splits.current.id,
        )
        places = places_of((folder,))
        run(job, None, Alone(), lambda *_, **__: None, trusted=(), splits=splits, places=places)
        outcome = read_outcome(job, places)
        if outcome is None:
            raise SystemExit("the training ended without an outcome")
        save(load(places.locate(outcome.uri)), str(out))


def train_champion(data: Path, out: Path) -> None:
    """Train as everybody does by default."""
    command = ["train", str(data / "train.jsonl"), "--test", str(data / "test.jsonl"), "--out", str(out)]
    subprocess.run([sys.executable, "-m", "headrace", *command], check=True)  # noqa: S603 - our own command line


def main() -> None:
    """Train what is not there yet."""
    parser = argparse.ArgumentParser(prog="python -m load.peers.artifacts", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for name, train in (("full", train_full), ("champion", train_champion)):
        path = options.out / f"{name}.safetensors"
        if not path.exists():
            train(options.data, path)


if __name__ == "__main__":
    main()
