"""How well `headrace labels suspects` finds wrong labels: some are planted by chance, and looked for.

    python -m tests.benchmarks.suspects FOLDER [--sets banking77,ag_news] [--wrong 0.05] [--seeds 0,1,2] [--quick]

FOLDER is that of tests/benchmarks/accuracy.py. Of a set's training rows so many get another of its labels, chosen by
chance. Compared are what the command lists (confident learning, pruned by class); the other way of that paper, rows
beside the diagonal of the joint in the order of their margin; all rows in the order of the score of their own label;
and chance. k is how many are wrong. What the set itself has of wrong labels counts as a false find, so every precision
is too low by some. With --quick the whole network of `headrace train
--quick` scores the rows too, in place of the wide part alone.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from headrace.learning.data.files import Rows
from headrace.learning.data.split import Split, split, whole
from headrace.learning.data.validation import clean
from headrace.learning.distributed.collectives import Alone
from headrace.learning.distributed.job import NoCheckpoints
from headrace.learning.fit.hyperparameters import Recipe, adapted
from headrace.learning.fit.teaching import cross_folds
from headrace.learning.fit.train import train
from headrace.learning.suspects import FOLDS, OutOfFold, find_suspects, out_of_fold
from headrace.model.network import float_logits
from tests.benchmarks.teaching import read

NO_ROWS = Rows((), ())


def planted(rows: Rows, share: float, seed: int) -> tuple[Rows, NDArray[np.bool_]]:
    """The rows with the ``share`` of their labels replaced, and which they are."""
    randomness = np.random.default_rng(seed)
    names = sorted(set(rows.labels))
    wrong = np.zeros(len(rows), np.bool_)
    wrong[randomness.choice(len(rows), round(share * len(rows)), replace=False)] = True
    labels = [
        names[(names.index(label) + int(randomness.integers(1, len(names)))) % len(names)] if is_wrong else label
        for label, is_wrong in zip(rows.labels, wrong.tolist(), strict=True)
    ]
    return Rows(rows.texts, tuple(labels)), wrong


def by_network(rows: Rows, seed: int) -> OutOfFold:
    """Scores of whole networks, each of which learnt from the other folds."""
    parts = whole(Split(train=rows, valid=NO_ROWS, test=NO_ROWS, held_out=0))
    scores = np.zeros((len(rows), len(parts.labels)), np.float32)
    for fold in cross_folds(parts, FOLDS, Alone()):
        learnt = whole(split(clean(fold.train), test=fold.valid))
        recipe = adapted(seed=seed, epochs=4, threads=1)
        network = train(learnt, recipe, Alone(), NoCheckpoints(), clock=time.perf_counter).network
        logits = torch.from_numpy(np.asarray(float_logits(network, fold.valid.texts), np.float32))
        places = np.array([parts.labels.index(label) for label in network.labels])
        scores[np.ix_(np.flatnonzero(~fold.known), places)] = torch.softmax(logits, dim=1).numpy()
    given = np.array([parts.labels.index(label) for label in rows.labels])
    return OutOfFold(places=tuple(range(len(rows))), labels=parts.labels, scores=scores, given=given, alone=0)


def beside_diagonal(scores: NDArray[np.float32], given: NDArray[np.int64]) -> list[int]:
    """The rows whose class that is taken to be true is another than theirs, by the margin of it."""
    rows = np.arange(len(given))
    own = scores[rows, given]
    thresholds = np.bincount(given, weights=own) / np.bincount(given) - 1e-6
    reaching = np.where(scores >= thresholds, scores, -1)
    true = reaching.argmax(axis=1)
    beside = np.flatnonzero((reaching[rows, true] >= 0) & (true != given) & (own < scores.max(axis=1)))
    return beside[np.argsort((own - scores[rows, true])[beside], kind="stable")].tolist()  # type: ignore[no-any-return]


def precision(order: Sequence[int], wrong: NDArray[np.bool_], count: int) -> float:
    first = list(order)[:count]
    return float(wrong[first].mean()) if first else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=os.environ.get("HEADRACE_DATA") or None)
    parser.add_argument("--sets", default="banking77,ag_news")
    parser.add_argument("--wrong", type=float, default=0.05, help="the share of labels that are replaced")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--quick", action="store_true", help="score by whole networks too")
    options = parser.parse_args()
    if options.folder is None:
        parser.error("no data folder: give it as argument or in HEADRACE_DATA")
    torch.set_num_threads(1)
    print("set        by    seed     k  CPU s | order       k / 4   k / 2       k |   rows precision  recall")
    for name in options.sets.split(","):
        rows, _ = read(options.folder, name)
        for seed in map(int, options.seeds.split(",")):
            noisy, wrong = planted(rows, options.wrong, seed)
            for scorer in ("wide", "quick")[: 1 + options.quick]:
                begun = time.process_time()
                recipe = msgspec.structs.replace(Recipe(), seed=seed)
                found = out_of_fold(noisy, recipe) if scorer == "wide" else by_network(noisy, seed)
                suspects = find_suspects(found.scores, found.given)
                seconds = time.process_time() - begun
                own = found.scores[np.arange(len(found.given)), found.given]
                orders = {
                    "listed": [one.row for one in suspects],
                    "diagonal": beside_diagonal(found.scores, found.given),
                    "own score": np.argsort(own, kind="stable").tolist(),
                }
                k = int(wrong.sum())
                for order, rows_of in orders.items():
                    places = [found.places[row] for row in rows_of]
                    shares = " ".join(f"{precision(places, wrong, count):7.1%}" for count in (k // 4, k // 2, k))
                    finds = places if len(places) < len(own) else places[: len(suspects)]
                    print(
                        f"{name:<10} {scorer:<5} {seed:>4} {k:>5} {seconds:>6.0f} | {order:<9} {shares} |"
                        f" {len(finds):>6} {precision(finds, wrong, len(finds)):>9.1%} {wrong[finds].sum() / k:>7.1%}",
                        flush=True,
                    )
            print(f"{name:<10} {'':<5} {seed:>4} {k:>5} {'':>6} | chance    {wrong.mean():7.1%}", flush=True)


if __name__ == "__main__":
    main()
