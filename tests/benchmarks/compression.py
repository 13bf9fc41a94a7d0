"""What compression gives on every data set: size, macro-F1 on the test rows and speed, before and after.

    python -m tests.benchmarks.compression [FOLDER] [--sets trec6,mr] [--seed 0] [--budget 0.5] [--out DIR]

Sets and FOLDER are those of tests/benchmarks/accuracy.py. ``fp32`` is the network as trained, ``pruned`` what was kept
of it, tuned, in fp32 too, ``int`` the artifact. Speed is of the cpu backend on one thread: of the whole network in
int8, and of the artifact. With --out each set's curve is written there as a picture.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table

from headrace.files import DatasetError
from headrace.learning.compress.curve import Budget, Curve, draw, figures
from headrace.learning.data.files import Rows
from headrace.learning.evaluate import compare, latency_us
from headrace.learning.fit.hyperparameters import Recipe
from headrace.model.artifact import About, assemble
from headrace.model.backends.interface import open_backend
from headrace.model.network import Network, float_logits
from headrace.model.quantizing import quantize
from tests.benchmarks.accuracy import SETS, Outcome, measure, read_set
from tests.benchmarks.accuracy import columns as accuracy_columns


def columns(outcome: Outcome, curve: Curve) -> Iterator[tuple[str, str]]:
    trained, test, artifact = outcome.trained, outcome.parts.test, outcome.packed.artifact
    told = figures(curve, trained.original, trained.network, artifact.size)
    before, after = outcome.packed.float_report.macro_f1, outcome.packed.report.macro_f1
    whole = open_backend("cpu", assemble(quantize(trained.original), About()))
    small = open_backend("cpu", artifact)
    yield "fp32 kB", f"{told['bytes_fp32'] / 1000:,.0f}"
    yield "int8 kB", f"{whole.artifact.size / 1000:,.0f}"
    yield "kB", f"{artifact.size / 1000:,.0f}"
    yield "ratio", f"{told['ratio']:.1f}"
    yield "fp32 F1 %", f"{100 * before:.2f}"
    yield "pruned F1 %", f"{100 * _macro_f1(trained.network, test):.2f}"
    yield "int F1 %", f"{100 * after:.2f}"
    yield "lost", f"{100 * (before - after):+.2f}"
    yield "lost, valid", f"{100 * (told['macro_f1_fp32'] - told['macro_f1']):+.2f}"
    yield "int8 texts/s", f"{1e6 / latency_us(whole, test.texts, time.perf_counter):,.0f}"
    yield "texts/s", f"{1e6 / latency_us(small, test.texts, time.perf_counter):,.0f}"
    plan = curve.chosen.plan
    yield "words", f"{plan.words:.0%}"
    yield "bigrams", f"{plan.bigrams:.0%}"
    yield "dim.", f"{plan.dimensions}"
    yield "filters", f"{plan.filters}"
    yield "bits", f"{plan.bits.convolution}, {plan.bits.wide}"
    yield "tuned", curve.chosen.tuning.value


def _macro_f1(network: Network, rows: Rows) -> float:
    best = np.argmax(float_logits(network, rows.texts), axis=1)
    return compare(rows.labels, [network.labels[place] for place in best]).macro_f1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=os.environ.get("HEADRACE_DATA") or None)
    parser.add_argument("--sets", default=",".join(SETS), help="names with commas between them")
    parser.add_argument("--seed", type=int, default=Recipe().seed)
    parser.add_argument("--threads", type=int, default=Recipe().threads)
    parser.add_argument("--budget", type=float, default=Budget().points, help="points of macro-F1")
    parser.add_argument("--out", type=Path, help="folder for the pictures")
    options = parser.parse_args()
    recipe = msgspec.structs.replace(Recipe(), seed=options.seed, threads=options.threads)
    budget = Budget(points=options.budget)

    console = Console() if sys.stdout.isatty() else Console(width=200)
    table = Table("set", title=f"Compression within {budget.points} points of macro-F1, seed {recipe.seed}")
    ratios = []
    for name in options.sets.split(","):
        try:
            outcome = measure(name, read_set(name, options.folder), recipe, budget)
        except DatasetError as error:
            console.print(f"skipped {name}: {error}", soft_wrap=True)
            continue
        curve = outcome.trained.curve
        assert curve is not None
        row = dict(columns(outcome, curve))
        accuracy = accuracy_columns(outcome, recipe.seed)
        console.print(f"{name}: " + ", ".join(f"{column} {value}" for column, value in accuracy))
        ratios.append(float(row["ratio"]))
        console.print(f"{name}: " + ", ".join(f"{column} {value}" for column, value in row.items()), soft_wrap=True)
        if options.out is not None:
            options.out.mkdir(parents=True, exist_ok=True)
            (options.out / f"{name}.svg").write_bytes(draw(curve, name))
        if not table.row_count:
            for column in row:
                table.add_column(column, justify="right")
        table.add_row(name, *row.values())
    console.print(table)
    if ratios:
        console.print(f"median ratio {statistics.median(ratios):.1f}")


if __name__ == "__main__":
    main()
