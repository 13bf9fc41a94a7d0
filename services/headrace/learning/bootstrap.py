"""What macro-F1 of some rows says of all texts: intervals by the bootstrap, and whether it could be chance.

Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13, the percentile interval; for comparing two
systems on one test set as by Koehn, Statistical Significance Tests for Machine Translation Evaluation (EMNLP 2004).
Rows are drawn with replacement, each with its true label and the answers, so that what both find hard does not blur
their difference. Drawing n rows is drawing how often each distinct combination of labels occurs, one multinomial, which
is the same distribution and needs no row.

Few rows may be all right, or equal, by chance, and drawing such rows shows nothing else: the plain interval is a point.
So two rows are added to what is drawn from, as in the intervals of Agresti and Coull (The American Statistician 52,
1998): one for each way in which the next row could differ, spread over the classes as the rows are. Of n rows that are
all right the interval then reaches down about as far as the exact one of Clopper and Pearson.

Macro-F1 is the mean of F1 over the classes among the true labels of the rows drawn, the same classes for both. A class
that is not drawn is left out of that draw: it has no F1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from headrace.core.gate import Comparison

INTERVAL = (0.025, 0.975)
_CELLS_AT_ONCE = 1 << 20
_RESAMPLES = 1000
_EQUAL = 1e-12


def compare_paired(
    truth: Sequence[str],
    candidate: Sequence[str],
    champion: Sequence[str],
    *,
    resamples: int,
    randomness: np.random.Generator,
) -> Comparison:
    """Compare two classifiers' answers to the same rows; the same generator state gives the same interval.

    Raises ValueError for no rows or unequal lengths.
    """
    if not truth or not len(truth) == len(candidate) == len(champion):
        raise ValueError(f"{len(truth)} labels, {len(candidate)} and {len(champion)} answers can't be compared")
    labels, triples, counts = _cells(truth, candidate, champion)
    ours, theirs = (_macro_f1(counts[None, :], triples[0], triples[place], labels)[0] for place in (1, 2))
    # Only the candidate is right on one of the rows added, only the champion on the other.
    right, wrong, weights = _one_more(triples[0], counts, labels)
    added = np.concatenate([np.stack([right, right, wrong]), np.stack([right, wrong, right])], axis=1)
    triples, weighted = np.concatenate([triples, added], axis=1), np.concatenate([counts, weights, weights])
    differences = np.concatenate(
        [
            _macro_f1(drawn, triples[0], triples[1], labels) - _macro_f1(drawn, triples[0], triples[2], labels)
            for drawn in _draws(weighted, len(truth), resamples, randomness)
        ]
    )
    low, high = _around(float(ours - theirs), differences)
    return Comparison(rows=len(truth), macro_f1=float(ours), rival_macro_f1=float(theirs), low=low, high=high)


def macro_f1_interval(truth: Sequence[str], answers: Sequence[str]) -> tuple[float, float]:
    """The 95 % interval of the macro-F1 of ``answers``; the same rows give the same. Raises ValueError as above."""
    if not truth or len(truth) != len(answers):
        raise ValueError(f"{len(truth)} labels and {len(answers)} answers can't be compared")
    labels, pairs, counts = _cells(truth, answers)
    seen = float(_macro_f1(counts[None, :], pairs[0], pairs[1], labels)[0])
    # One of the rows added is answered right, the other wrong.
    right, wrong, weights = _one_more(pairs[0], counts, labels)
    added = np.concatenate([np.stack([right, right]), np.stack([right, wrong])], axis=1)
    pairs, weighted = np.concatenate([pairs, added], axis=1), np.concatenate([counts, weights, weights])
    draws = _draws(weighted, len(truth), _RESAMPLES, np.random.default_rng(0))
    return _around(seen, np.concatenate([_macro_f1(drawn, pairs[0], pairs[1], labels) for drawn in draws]))


def by_chance(
    truth: Sequence[str], answers: Sequence[str], *, resamples: int, randomness: np.random.Generator
) -> float:
    """How often answers that ignore the text, but are as often each class, reach a macro-F1 as high: the p-value of a
    permutation test, above 0 and at most 1.

    It is exact for any number of rows (Phipson and Smyth, Permutation P-values Should Never Be Zero, 2010). Raises
    ValueError for no rows or unequal lengths.
    """
    if not truth or len(truth) != len(answers):
        raise ValueError(f"{len(truth)} labels and {len(answers)} answers can't be compared")
    names, codes = np.unique([list(truth), list(answers)], return_inverse=True)
    given, answered = codes.reshape(2, -1)
    # Shuffled labels stay as many of each class, so F1 of a class is its right answers times this.
    worth = 2 / (np.bincount(given, minlength=len(names)) + np.bincount(answered, minlength=len(names)))
    worths = worth[answered]
    seen = worths[given == answered].sum() - _EQUAL
    as_good = sum(worths[randomness.permutation(given) == answered].sum() >= seen for _ in range(resamples))
    return float((1 + as_good) / (1 + resamples))


def _cells(*columns: Sequence[str]) -> tuple[int, NDArray[np.int64], NDArray[np.int64]]:
    """How many labels there are, every distinct combination of them, and how many rows have it.

    One label more than occurs is counted: an answer that is none of the others.
    """
    names, codes = np.unique([list(column) for column in columns], return_inverse=True)
    cells, counts = np.unique(codes.reshape(len(columns), -1), axis=1, return_counts=True)
    return len(names) + 1, cells, counts


def _one_more(
    truth: NDArray[np.int64], counts: NDArray[np.int64], labels: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """One row spread over the classes as the rows are: each class, one that it is mistaken for, its share of a row."""
    support = np.bincount(truth, counts, labels)
    classes = np.flatnonzero(support)
    mistaken = np.roll(classes, -1) if len(classes) > 1 else np.array([labels - 1])
    return classes, mistaken, support[classes] / support.sum()


def _draws(
    weights: NDArray[np.float64], rows: int, resamples: int, randomness: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """``int64[d, cells]`` at a time, ``resamples`` in all, so that memory stays bounded."""
    at_once = max(1, _CELLS_AT_ONCE // len(weights))
    for first in range(0, resamples, at_once):
        yield randomness.multinomial(rows, weights / weights.sum(), size=min(at_once, resamples - first))


def _around(seen: float, drawn: NDArray[np.float64]) -> tuple[float, float]:
    """The interval of what was drawn, which holds what was seen."""
    low, high = np.quantile(drawn, INTERVAL)
    return min(float(low), seen), max(float(high), seen)


def _macro_f1(
    counts: NDArray[np.int64], truth: NDArray[np.int64], answers: NDArray[np.int64], labels: int
) -> NDArray[np.float64]:
    """``float64[d]`` of ``counts`` int64[d, t]: how often each cell occurs, with its true label and its answer."""
    support, predicted = _by_label(counts, truth, labels), _by_label(counts, answers, labels)
    right = _by_label(counts[:, truth == answers], truth[truth == answers], labels)
    present = support > 0
    f1 = np.divide(2 * right, support + predicted, where=present, out=np.zeros(support.shape))
    means: NDArray[np.float64] = f1.sum(axis=1) / present.sum(axis=1)
    return means


def _by_label(counts: NDArray[np.int64], label: NDArray[np.int64], labels: int) -> NDArray[np.float64]:
    """``float64[d, labels]``: the counts of the cells with each label. Sums of whole numbers, so exact."""
    draws = len(counts)
    places = np.arange(draws)[:, None] * labels + label
    sums = np.bincount(places.ravel(), counts.ravel(), draws * labels).astype(np.float64)
    return sums.reshape(draws, labels)
