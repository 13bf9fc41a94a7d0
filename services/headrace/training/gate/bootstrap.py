"""How far two classifiers' macro-F1 are apart on the same rows, and how far that could be chance: a paired bootstrap.

Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13, the percentile interval; for comparing two
systems on one test set as by Koehn, Statistical Significance Tests for Machine Translation Evaluation (EMNLP 2004).
Rows are drawn with replacement, each with its true label and both answers, so that what both find hard does not blur
their difference. Drawing n rows is drawing how often each distinct triple of labels occurs, one multinomial, which is
the same distribution and needs no row.

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
    names, codes = np.unique([truth, candidate, champion], return_inverse=True)
    # Every distinct triple, and how many rows have it.
    triples, counts = np.unique(codes.reshape(3, -1), axis=1, return_counts=True)
    rows, labels = len(truth), len(names)
    ours, theirs = (_macro_f1(counts[None, :], triples[0], triples[place], labels)[0] for place in (1, 2))
    differences = np.concatenate(
        [
            _macro_f1(drawn, triples[0], triples[1], labels) - _macro_f1(drawn, triples[0], triples[2], labels)
            for drawn in _draws(counts / rows, rows, resamples, randomness)
        ]
    )
    low, high = np.quantile(differences, INTERVAL)
    return Comparison(rows=rows, macro_f1=float(ours), rival_macro_f1=float(theirs), low=float(low), high=float(high))


def _draws(
    shares: NDArray[np.float64], rows: int, resamples: int, randomness: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """``int64[d, triples]`` at a time, ``resamples`` in all, so that memory stays bounded."""
    at_once = max(1, _CELLS_AT_ONCE // len(shares))
    for first in range(0, resamples, at_once):
        yield randomness.multinomial(rows, shares, size=min(at_once, resamples - first))


def _macro_f1(
    counts: NDArray[np.int64], truth: NDArray[np.int64], answers: NDArray[np.int64], labels: int
) -> NDArray[np.float64]:
    """``float64[d]`` of ``counts`` int64[d, t]: how often each triple occurs, with its true label and its answer."""
    support, predicted = _by_label(counts, truth, labels), _by_label(counts, answers, labels)
    right = _by_label(counts[:, truth == answers], truth[truth == answers], labels)
    present = support > 0
    f1 = np.divide(2 * right, support + predicted, where=present, out=np.zeros(support.shape))
    means: NDArray[np.float64] = f1.sum(axis=1) / present.sum(axis=1)
    return means


def _by_label(counts: NDArray[np.int64], label: NDArray[np.int64], labels: int) -> NDArray[np.float64]:
    """``float64[d, labels]``: the counts of the triples with each label. Sums of whole numbers, so exact."""
    sums: NDArray[np.float64] = counts.astype(np.float64) @ np.eye(labels)[label]
    return sums
