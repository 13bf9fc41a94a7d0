"""How many texts of no known class are recognized when 95 % of the others are accepted, and how honest scores are.

    python tests/benchmarks/out_of_scope.py [FOLDER] [--accept 0.95] [--seed 0] [--threads 1]

FOLDER (or the environment variable HEADRACE_DATA) has clinc150/ with train.jsonl, dev.jsonl and test.jsonl, whose rows
of the label "oos" are of none of the 150 intents. Trained twice: on rows of known intents only, and with the 100 rows
of "oos" as a class of their own. A text is rejected when its score is below the version's threshold, which the
validation rows gave, or when it is answered "oos". Accuracy and the expected calibration error are of the test rows of
known intents; "raw" is the error of the convolution by itself, before the validation rows scaled and blended it.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table

from headrace.files import DatasetError
from headrace.learning.data.files import Rows, read_rows
from headrace.learning.data.split import split, whole
from headrace.learning.data.validation import clean
from headrace.learning.distributed.collectives import Alone
from headrace.learning.distributed.job import NoCheckpoints
from headrace.learning.evaluate import answer_scored, calibration_error
from headrace.learning.fit.hyperparameters import Recipe
from headrace.learning.fit.train import Trained, train
from headrace.learning.package import lineage_of, pack
from headrace.model.backends.interface import open_backend
from headrace.model.network import float_logits

SET = "clinc150"
UNKNOWN = "oos"


def without_unknown(rows: Rows) -> Rows:
    return rows.take([place for place, label in enumerate(rows.labels) if label != UNKNOWN])


def raw_calibration_error(trained: Trained, test: Rows) -> float:
    """The error of the convolution's own scores, the weights of the blend taken out again."""
    weights = trained.chosen.weights
    logits = float_logits(replace(trained.original, blend=1.0), test.texts) / (weights.convolution + weights.wide)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    best = logits.argmax(axis=1)
    right = [trained.original.labels[place] == label for place, label in zip(best, test.labels, strict=True)]
    return calibration_error((powers.max(axis=1) / powers.sum(axis=1)).tolist(), right)


def columns(folder: Path, recipe: Recipe, accept: float, *, with_unknown: bool) -> Iterator[tuple[str, str]]:
    def read(name: str) -> Rows:
        rows = read_rows(folder / SET / f"{name}.jsonl")
        return rows if with_unknown else without_unknown(rows)

    test = read_rows(folder / SET / "test.jsonl")
    known = without_unknown(test)
    unknown = test.take([place for place, label in enumerate(test.labels) if label == UNKNOWN])
    parts = whole(split(clean(read("train")), valid=clean(read("dev")), test=known))
    trained = train(parts, recipe, Alone(), NoCheckpoints(), clock=time.perf_counter, accept=accept)
    packed = pack(trained, parts, lineage_of(parts, SET, recipe, Alone()), Alone())
    backend = open_backend("cpu", packed.artifact)
    threshold = packed.artifact.about.threshold or 0.0
    inside, outside = answer_scored(backend, known.texts), answer_scored(backend, unknown.texts)
    accepted, mistaken = (
        np.array([label != UNKNOWN for label in answered.labels]) & (np.array(answered.scores) >= threshold)
        for answered in (inside, outside)
    )
    right = np.array([given == label for given, label in zip(inside.labels, known.labels, strict=True)])
    yield "oos rows trained on", f"{sum(label == UNKNOWN for label in parts.split.train.labels)}"
    yield "threshold", f"{threshold:.3f}"
    yield "accepted %", f"{100 * accepted.mean():.2f}"
    yield "oos recall %", f"{100 * (1 - mistaken.mean()):.2f}"
    yield "accuracy %", f"{100 * right.mean():.2f}"
    yield "of accepted %", f"{100 * right[accepted].mean():.2f}"
    yield "raw ECE %", f"{100 * raw_calibration_error(trained, known):.2f}"
    yield "ECE %", f"{100 * calibration_error(inside.scores, right.tolist()):.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=os.environ.get("HEADRACE_DATA") or None)
    parser.add_argument("--accept", type=float, default=0.95, help="share of texts of known intents to be accepted")
    parser.add_argument("--seed", type=int, default=Recipe().seed)
    parser.add_argument("--threads", type=int, default=Recipe().threads)
    options = parser.parse_args()
    if options.folder is None:
        parser.error("no data folder: give it as argument or in HEADRACE_DATA")
    recipe = msgspec.structs.replace(Recipe(), seed=options.seed, threads=options.threads)

    console = Console() if sys.stdout.isatty() else Console(width=160)
    table = Table(title=f"{SET}: {options.accept:.0%} of the texts of known intents accepted, seed {recipe.seed}")
    for with_unknown in (False, True):
        try:
            row = dict(columns(Path(options.folder), recipe, options.accept, with_unknown=with_unknown))
        except DatasetError as error:
            parser.error(str(error))
        console.print(", ".join(f"{column} {value}" for column, value in row.items()), soft_wrap=True)
        if not table.row_count:
            for column in row:
                table.add_column(column, justify="right")
        table.add_row(*row.values())
    console.print(table)


if __name__ == "__main__":
    main()
