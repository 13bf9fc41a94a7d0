"""How many labels a wanted accuracy takes: texts chosen by the least margin, and by chance.

    python -m tests.benchmarks.selection FOLDER [--sets trec6,ag_news,banking77] [--seeds 0,1,2,3,4] [--whole]

FOLDER is that of tests/benchmarks/accuracy.py. The texts of a set's training rows are the requests, nearly all without
a label at first. A version is trained on what is labelled and answers the requests; `headrace.core.selection` chooses
the next batch from the answers, as `headrace labels suggest` does; its true labels are added, and so on. Both queues
begin with the same texts, chosen by chance; by chance every seed draws others.

A version is the wide part alone, which is fitted in a moment, its scores calibrated on the validation rows of its
labels; with --whole it is the whole int8 network of the default recipe, without compression, which takes ten times as
long. Accuracy is that on the test rows of the official split.

What was measured is kept in --kept, a line a version, and is not measured again. After --minutes no further queue is
begun. The picture has the mean of the seeds and, as a band, the least and the best of them.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from headrace.core.selection import Candidate, Why, distinct, in_order
from headrace.learning.data.features import fit_wide_part, prepare
from headrace.learning.data.files import Rows
from headrace.learning.data.split import Parts, split, whole
from headrace.learning.data.validation import clean, text_keys
from headrace.learning.distributed.collectives import Alone
from headrace.learning.distributed.job import NoCheckpoints
from headrace.learning.fit.blend import fit_scale
from headrace.learning.fit.hyperparameters import Recipe
from headrace.learning.fit.train import train
from headrace.learning.fit.wide import wide_logits
from headrace.model.artifact import About, assemble
from headrace.model.backends.interface import open_backend
from headrace.model.quantizing import quantize
from headrace_load.report.drawing import BLUE, ORANGE, drawn, png
from headrace_schemas.records import ClassifyResult, Score, Status
from tests.benchmarks.teaching import read, share

SIZES: Mapping[str, tuple[int, ...]] = {
    "trec6": (200, 300, 450, 700, 1000, 1500, 2200),
    "ag_news": (200, 300, 450, 700, 1000, 1500, 2200),
    "banking77": (400, 600, 900, 1350, 2000, 3000),
}
"""How many labels there are when a version is trained."""
WANTED: Mapping[str, tuple[float, ...]] = {
    "trec6": (75.0, 80.0, 84.0),
    "ag_news": (80.0, 83.0, 85.0),
    "banking77": (60.0, 70.0, 80.0),
}
"""Accuracies in %, whose labels are counted."""
QUEUES = {Why.RANDOM: BLUE, Why.MARGIN: ORANGE}
NAMES = {Why.RANDOM: "by chance", Why.MARGIN: "least margin"}
TEXTS_AT_ONCE = 1024


Ranked = tuple[Score, Score]
"""The two best labels of a text."""
Ask = Callable[[Sequence[str]], list[Ranked]]


class Point(msgspec.Struct, frozen=True):
    """The accuracy in % of the version of ``labels`` labels; ``seconds`` of CPU, with its answers."""

    set: str
    seed: int
    queue: Why
    labels: int
    accuracy: float
    seconds: float
    version: str


def whole_network(parts: Parts, seed: int) -> Ask:
    """What answers after a training by the default recipe."""
    trained = train(parts, Recipe(seed=seed, threads=1), Alone(), NoCheckpoints(), clock=time.perf_counter)
    backend = open_backend("cpu", assemble(quantize(trained.network), About()))
    names = backend.artifact.labels

    def ask(texts: Sequence[str]) -> list[Ranked]:
        ranked: list[Ranked] = []
        for first in range(0, len(texts), TEXTS_AT_ONCE):
            found = backend.classify([text.encode() for text in texts[first : first + TEXTS_AT_ONCE]], ranking=2)
            pairs = zip(found.ranking.tolist(), found.ranking_scores.tolist(), strict=True)
            ranked += [(Score(names[one], best), Score(names[two], next_)) for (one, two), (best, next_) in pairs]
        return ranked

    return ask


def wide_part(parts: Parts, seed: int) -> Ask:
    """What answers after the wide part alone was fitted."""
    recipe, names, exchange = Recipe(seed=seed, threads=1), parts.labels, Alone()

    def fitted(rows: Rows) -> Callable[[Rows], torch.Tensor]:
        material = prepare(rows, names, recipe, exchange)
        wide = fit_wide_part(material, recipe, exchange)
        return lambda asked: wide_logits(*wide, prepare(asked, names, recipe, exchange, material.vocabulary).features())

    held = fitted(parts.split.train)(parts.split.valid)
    targets = torch.tensor([names.index(label) for label in parts.split.valid.labels])
    scale = fit_scale(held, targets)
    logits_of = fitted(parts.split.train + parts.split.valid)

    def ask(texts: Sequence[str]) -> list[Ranked]:
        logits = logits_of(Rows(tuple(texts), (names[0],) * len(texts)))
        scores, places = torch.softmax(scale * logits, dim=1).topk(2, dim=1)
        pairs = zip(places.tolist(), scores.tolist(), strict=True)
        return [(Score(names[one], best), Score(names[two], next_)) for (one, two), (best, next_) in pairs]

    return ask


VERSIONS = {"wide": wide_part, "whole": whole_network}


def result_at(place: int, ranking: tuple[Score, ...] = (Score("", 0.0),)) -> ClassifyResult:
    """The answer to the request at the offset ``place``."""
    best = ranking[0]
    return ClassifyResult(
        offset=place,
        after=place - 1,
        crc=0,
        status=Status.OK,
        version="v",
        label=best.label,
        score=best.score,
        ranking=ranking,
    )


def course(name: str, rows: Rows, test: Rows, seed: int, queue: Why, kind: str) -> Iterator[Point]:
    """A version of each size, the labels of each chosen by the answers of the one before."""
    topic, keys = f"{name}-{seed}", text_keys(rows.texts)
    begin = [Candidate(0, result_at(place)) for place in range(len(rows))]
    chosen = _taken(in_order(begin, Why.RANDOM, topic=topic), keys, [], SIZES[name][0])
    for size in SIZES[name]:
        begun = time.process_time()
        ask = VERSIONS[kind](whole(split(clean(rows.take(sorted(chosen))), test=test)), seed)
        accuracy = share(test.labels, [best.label for best, _ in ask(test.texts)])
        if size != SIZES[name][-1]:
            known = set(chosen)
            left = [place for place in range(len(rows)) if place not in known]
            answered = zip(left, ask([rows.texts[place] for place in left]), strict=True)
            candidates = (Candidate(0, result_at(place, ranked)) for place, ranked in answered)
            ordered = in_order(candidates, queue, topic=topic)
            after = SIZES[name][SIZES[name].index(size) + 1]
            chosen += _taken(ordered, keys, chosen, after - size)
        yield Point(name, seed, queue, size, accuracy, time.process_time() - begun, kind)


def _taken(ordered: Sequence[Candidate], keys: Sequence[bytes], known: Sequence[int], count: int) -> list[int]:
    places = [one.answer.offset for one in ordered]
    left = distinct(places, [keys[place] for place in places], [keys[place] for place in known])
    return [place for place, _ in zip(left, range(count), strict=False)]


def needed(points: Sequence[Point], wanted: float) -> float | None:
    """How many labels first gave the accuracy ``wanted``, by straight lines over the logarithm of the labels between
    the versions of one seed; None where none did.
    """
    before: Point | None = None
    for point in sorted(points, key=lambda one: one.labels):
        if point.accuracy >= wanted:
            if before is None:
                return float(point.labels)
            part = (wanted - before.accuracy) / (point.accuracy - before.accuracy)
            return float(before.labels * (point.labels / before.labels) ** part)
        before = point
    return None


def of(points: Sequence[Point], name: str, queue: Why, seed: int | None = None) -> list[Point]:
    return [one for one in points if (one.set, one.queue) == (name, queue) and (seed is None or one.seed == seed)]


def curve(points: Sequence[Point], name: str, queue: Why) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Sizes, and the accuracies (sizes, seeds) of the seeds that have all of them."""
    sizes = SIZES[name]
    by_seed = {one.seed: of(points, name, queue, one.seed) for one in of(points, name, queue)}
    whole_ones = [sorted(found, key=lambda one: one.labels) for found in by_seed.values() if len(found) == len(sizes)]
    return np.array(sizes), np.array([[one.accuracy for one in found] for found in whole_ones]).T


def tables(points: Sequence[Point], names: Sequence[str]) -> Iterator[Table]:
    """The accuracy by labels, and the labels by accuracy."""
    for name in names:
        table = Table("labels", *NAMES.values(), "difference", "seeds better", title=f"{name}: accuracy in %, mean")
        sizes, by_chance = curve(points, name, Why.RANDOM)
        _, by_margin = curve(points, name, Why.MARGIN)
        if by_chance.shape != by_margin.shape or not by_chance.size:
            continue
        for size, one, other in zip(sizes, by_chance, by_margin, strict=True):
            table.add_row(
                f"{size:,}",
                f"{one.mean():.2f}",
                f"{other.mean():.2f}",
                f"{(other - one).mean():+.2f}",
                f"{int((other > one).sum())} of {len(one)}",
            )
        yield table
    table = Table("set", "accuracy", *NAMES.values(), "saved", title="Labels needed, the median of the seeds")
    for name in names:
        for wanted in WANTED[name]:
            medians = []
            for queue in QUEUES:
                seeds = sorted({one.seed for one in of(points, name, queue)})
                counts = [needed(of(points, name, queue, seed), wanted) for seed in seeds]
                medians.append(float(np.median([one or np.inf for one in counts])) if counts else np.inf)
            chance, margin = medians
            saved = f"{1 - margin / chance:.0%}" if np.isfinite(medians).all() else ""
            shown = [f"{one:,.0f}" if np.isfinite(one) else f"> {SIZES[name][-1]:,}" for one in medians]
            table.add_row(name, f"{wanted:g} %", *shown, saved)
    yield table


def draw(points: Sequence[Point], names: Sequence[str], where: Path) -> None:
    """A picture of the curves, side by side."""
    with drawn(3.2) as figure:
        for axes, name in zip(np.atleast_1d(figure.subplots(1, len(names))), names, strict=True):
            for queue, colour in QUEUES.items():
                sizes, accuracies = curve(points, name, queue)
                if not accuracies.size:
                    continue
                axes.fill_between(sizes, accuracies.min(axis=1), accuracies.max(axis=1), color=colour, alpha=0.18, lw=0)
                axes.plot(sizes, accuracies.mean(axis=1), color=colour, marker=".", label=NAMES[queue])
            axes.set_xscale("log")
            axes.set_xticks(SIZES[name][::2], [f"{size:,}" for size in SIZES[name][::2]])
            axes.minorticks_off()
            axes.grid(visible=True)
            axes.set(title=name, xlabel="labels")
        figure.axes[0].set_ylabel("accuracy on the test rows, %")
        figure.axes[0].legend(loc="lower right")
        where.parent.mkdir(parents=True, exist_ok=True)
        png(figure, where)


def kept_points(file: Path) -> list[Point]:
    if not file.exists():
        return []
    return [msgspec.json.decode(line, type=Point) for line in file.read_bytes().splitlines() if line]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=os.environ.get("HEADRACE_DATA") or None)
    parser.add_argument("--sets", default=",".join(SIZES), help="names with commas between them")
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--whole", action="store_true", help="versions are whole networks")
    parser.add_argument("--kept", type=Path, default=Path(".bench/selection.jsonl"), help="what was measured")
    parser.add_argument("--minutes", type=float, default=60.0, help="after these no further queue is begun")
    parser.add_argument("--picture", type=Path, default=Path("docs/images/selection.png"))
    options = parser.parse_args()
    if options.folder is None:
        parser.error("no data folder: give it as argument or in HEADRACE_DATA")
    names, seeds = options.sets.split(","), [int(seed) for seed in options.seeds.split(",")]
    options.kept.parent.mkdir(parents=True, exist_ok=True)
    kind = "whole" if options.whole else "wide"
    points = [one for one in kept_points(options.kept) if one.version == kind]
    ends = time.monotonic() + 60 * options.minutes
    torch.set_num_threads(1)
    read_sets = {name: read(options.folder, name) for name in names}
    # Seed by seed, so that a run that ends early has some of every set.
    for seed, name, queue in ((seed, name, queue) for seed in seeds for name in names for queue in QUEUES):
        if len(of(points, name, queue, seed)) == len(SIZES[name]) or time.monotonic() > ends:
            continue
        found = list(course(name, *read_sets[name], seed, queue, kind))
        points += found
        with options.kept.open("ab") as file:
            file.writelines(msgspec.json.encode(one) + b"\n" for one in found)
        print(
            f"{name} seed {seed} {queue}: "
            + ", ".join(f"{one.labels:,} {one.accuracy:.2f} %" for one in found)
            + f"; {sum(one.seconds for one in found):.0f} CPU s",
            flush=True,
        )
    shown = Console() if sys.stdout.isatty() else Console(width=100)
    for table in tables(points, names):
        shown.print(table)
    print(f"{sum(one.seconds for one in points):,.0f} CPU s in all")
    draw(points, names, options.picture)


if __name__ == "__main__":
    main()
