"""Accuracy from few labels: headrace alone, its teacher, headrace taught, its wide part alone, and the baselines.

    python -m tests.benchmarks.teaching FOLDER [--sets banking77,mr] [--rows 10-each,100,300,1000,all] [--seeds 0,1,2]

FOLDER is that of tests/benchmarks/accuracy.py. Of each set's training rows so many are labelled, chosen by the seed
("10-each": ten of each class), and the rest are unlabelled texts, of which the teacher labels all. The teacher is the
encoder of the installed wheel, fitted to the same rows. Answers are those of the whole int8 network to the test rows of
the official split. clinc150 is taken without its out-of-scope rows.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from headrace.labeller.teachers.encoder import Tune, fit_teacher
from headrace.learning.data.files import Rows, read_rows
from headrace.learning.data.split import UNKEYED, Part, Parts, split, whole, with_taught
from headrace.learning.data.taught import make_taught
from headrace.learning.data.validation import clean, text_keys
from headrace.learning.distributed.collectives import Alone
from headrace.learning.distributed.job import NoCheckpoints
from headrace.learning.encoder import load_encoder
from headrace.learning.evaluate import answer
from headrace.learning.fit.hyperparameters import Recipe
from headrace.learning.fit.train import Trained, train
from headrace.model.artifact import About, assemble
from headrace.model.backends.interface import open_backend
from headrace.model.network import float_logits
from headrace.model.quantizing import quantize
from tests.benchmarks.accuracy import in_scope
from tests.benchmarks.baselines import baselines

SETS = ("banking77", "clinc150", "ag_news", "trec6", "sst2", "mr")
EACH = "10-each"


class Remembering:
    """An encoder that embeds each text once, also for the next run where a ``folder`` is given."""

    def __init__(self, encoder: Any, folder: Path | None) -> None:
        self._encoder = encoder
        self._file = folder and folder / f"{encoder.digest[:16]}.npz"
        self._known: dict[str, NDArray[np.float32]] = {}
        if self._file and self._file.exists():
            with np.load(self._file) as kept:
                self._known = dict(zip(kept["texts"].tolist(), kept["vectors"], strict=True))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def embed(self, texts: Sequence[str], *_: Any) -> NDArray[np.float32]:
        places = [hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:32] for text in texts]
        new = {place: text for place, text in zip(places, texts, strict=True) if place not in self._known}
        if new:
            self._known |= dict(zip(new, self._encoder.embed(list(new.values())), strict=True))
            if self._file:
                np.savez(self._file, texts=np.array(list(self._known)), vectors=np.stack(list(self._known.values())))
        return np.stack([self._known[place] for place in places])


def read(folder: Path, name: str) -> tuple[Rows, Rows]:
    """The clean training rows whose text is no test text, and the test rows."""
    test = in_scope(name, read_rows(folder / name / "test.jsonl"))
    rows = in_scope(name, clean(read_rows(folder / name / "train.jsonl")).rows)
    tested = set(text_keys(test.texts))
    return rows.take([place for place, key in enumerate(text_keys(rows.texts)) if key not in tested]), test


def choose(rows: Rows, wanted: str, seed: int) -> tuple[Rows, list[str]]:
    """The labelled rows, and the texts of the others."""
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    if wanted == EACH:
        counts: Counter[str] = Counter()
        labelled = []
        for place in order:
            counts[rows.labels[place]] += 1
            if counts[rows.labels[place]] <= 10:
                labelled.append(place)
    else:
        labelled = order if wanted == "all" else order[: int(wanted)]
    chosen = set(labelled)
    return rows.take(sorted(labelled)), [rows.texts[place] for place in order if place not in chosen]


def share(truth: Sequence[str], answers: Sequence[str]) -> float:
    return 100 * float(np.mean([one == other for one, other in zip(truth, answers, strict=True)]))


def fitted(parts: Parts, recipe: Recipe, test: Rows, **given: Any) -> tuple[Trained, float, float]:
    """A training, and the accuracy of the whole int8 network and of its wide part alone."""
    trained = train(parts, recipe, Alone(), NoCheckpoints(), clock=time.perf_counter, **given)
    backend = open_backend("cpu", assemble(quantize(trained.original), About()))
    wide = float_logits(replace(trained.original, blend=0.0), test.texts).argmax(axis=1)
    names = trained.original.labels
    return trained, share(test.labels, answer(backend, test.texts)), share(test.labels, [names[i] for i in wide])


def measure(
    rows: Rows, test: Rows, wanted: str, seed: int, encoder: Any, tune: Tune, threads: int, only: set[str]
) -> Iterator[tuple[str, str]]:
    labelled, texts = choose(rows, wanted, seed)
    yield "labelled", f"{len(labelled):,}"
    yield "unlabelled", f"{len(texts):,}"
    recipe = Recipe(seed=seed, threads=threads)
    parts = whole(split(clean(labelled), test=test, folds=True))
    human = parts.split.train + parts.split.valid
    if "alone" in only and len(parts.split.valid):
        trained, right, wide = fitted(parts, recipe, test)
        yield "alone", f"{right:.2f}"
        yield "its wide", f"{wide:.2f}"
    if "taught" in only:
        teacher = fit_teacher(encoder, parts.split.train, parts.split.valid, tune=tune, seed=seed, threads=threads)
        best = teacher.score(test.texts).argmax(axis=1)
        yield "teacher", f"{share(test.labels, [teacher.labels[place] for place in best]):.2f}"
    if "taught" in only and texts:
        taught = make_taught(texts, teacher.labels, teacher.score(texts), teacher.identity.version)
        learnt = with_taught(parts, taught, UNKEYED, text_keys(labelled.texts), {Part.TEST})

        def reteach(known: Rows) -> NDArray[np.float32]:
            again = fit_teacher(encoder, known, Rows((), ()), tune=Tune.NEVER, seed=seed, threads=threads)
            told = make_taught(learnt.taught.texts, again.labels, again.score(learnt.taught.texts), "again")
            return told.of_classes(learnt.labels).probabilities

        trained, right, wide = fitted(
            learnt, recipe, test, embed=teacher.embed, reteach=reteach if teacher.evidence.crossed else None
        )
        yield "taught", f"{right:.2f}"
        yield "its wide part", f"{wide:.2f}"
        took = trained.choices[0]
        yield "weight, spread", f"{took.weight:g}, {took.spread:g}"
        yield "validation", f"{100 * took.accuracy:.2f} ({took.rows:,} rows, {took.folds} folds)"
    if "baselines" in only:
        for name, asked in baselines().items():
            yield name, f"{share(test.labels, asked(human, test.texts, seed)):.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=os.environ.get("HEADRACE_DATA") or None)
    parser.add_argument("--sets", default=",".join(SETS), help="names with commas between them")
    parser.add_argument("--rows", default=f"{EACH},100,300,1000,all", help="how many are labelled")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--only", default="alone,taught,baselines", help="columns, with commas between them")
    parser.add_argument("--tune", default="auto", choices=[str(one) for one in Tune], help="whether to fine-tune")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--vectors", type=Path, help="a folder that keeps what was embedded")
    options = parser.parse_args()
    if options.folder is None:
        parser.error("no data folder: give it as argument or in HEADRACE_DATA")
    console = Console() if sys.stdout.isatty() else Console(width=220)
    encoder: Any = load_encoder(None)
    if options.vectors or options.tune == "never":
        encoder = Remembering(encoder, options.vectors)
    table = Table("set", "rows", "seed", title=f"Teacher: {options.tune}; {options.threads} threads")
    for name in options.sets.split(","):
        rows, test = read(options.folder, name)
        for wanted in options.rows.split(","):
            for seed in map(int, options.seeds.split(",")):
                begun = time.process_time()
                found = dict(
                    measure(
                        rows,
                        test,
                        wanted,
                        seed,
                        encoder,
                        Tune(options.tune),
                        options.threads,
                        set(options.only.split(",")),
                    )
                )
                found["CPU s"] = f"{time.process_time() - begun:.0f}"
                line = ", ".join(f"{column} {value}" for column, value in found.items())
                console.print(f"{name} {wanted} seed {seed}: {line}", soft_wrap=True)
                for column in found:
                    if column not in [str(one.header) for one in table.columns]:
                        table.add_column(column, justify="right")
                headers = [str(one.header) for one in table.columns][3:]
                table.add_row(name, wanted, str(seed), *(found.get(column, "") for column in headers))
    console.print(table)


if __name__ == "__main__":
    main()
