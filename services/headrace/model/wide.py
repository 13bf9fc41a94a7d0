"""The wide part in PyTorch, for training: a linear map over hashed words and bigrams, summed without a dense matrix."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headrace.model.compiling import kernel
from headrace.model.network import FIRST_WORD_ROW, UNKNOWN_ROW, pair_hashes, rows_of, word_rows


class WideFeatures(NamedTuple):
    """The kept words and bigrams of texts, one entry an occurrence.

    ``columns`` int64[entries]: row r of ``words`` is column r, kept bigram j is column V + 2 + j. Text i has
    ``columns[starts[i]:starts[i + 1]]``, each weighing ``scales[i]``, which is 1 / sqrt(its words), at most 1.
    """

    columns: NDArray[np.int64]
    starts: NDArray[np.int64]
    scales: NDArray[np.float32]


def adjacent(starts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """``bool[words - 1]``: whether words i and i + 1 of texts that lie end to end are neighbours in one text."""
    text_of = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    same: NDArray[np.bool_] = text_of[1:] == text_of[:-1]
    return same


def wide_features(
    hashes: NDArray[np.uint64],
    starts: NDArray[np.int64],
    word_hashes: NDArray[np.uint64],
    bigram_hashes: NDArray[np.uint64],
) -> WideFeatures:
    """Find the features of texts that lie end to end: text i has the words ``hashes[starts[i]:starts[i + 1]]``.

    ``word_hashes`` uint64[V] and ``bigram_hashes`` uint64[B] are what the network keeps.
    """
    words = np.diff(starts)
    text_of = np.repeat(np.arange(len(words)), words)
    rows = word_rows(hashes, word_hashes)
    pairs = rows_of(pair_hashes(hashes), bigram_hashes)
    known = np.flatnonzero(rows != UNKNOWN_ROW)
    found = np.flatnonzero((pairs >= 0) & adjacent(starts))
    columns = np.concatenate([rows[known], pairs[found] + len(word_hashes) + FIRST_WORD_ROW])
    owners = np.concatenate([text_of[known], text_of[found]])
    order = np.argsort(owners, kind="stable")
    ends = np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=len(words)))])
    return WideFeatures(columns[order], ends, (1 / np.sqrt(np.maximum(words, 1))).astype(np.float32))


@kernel
def _sum_rows(columns, starts, scales, weights, sums):  # type: ignore[no-untyped-def]
    for text in range(len(scales)):
        for entry in range(starts[text], starts[text + 1]):
            for label in range(weights.shape[1]):
                sums[text, label] += scales[text] * weights[columns[entry], label]


@kernel
def _add_to_rows(columns, starts, scales, upstream, d_weights):  # type: ignore[no-untyped-def]
    for text in range(len(scales)):
        for entry in range(starts[text], starts[text + 1]):
            for label in range(upstream.shape[1]):
                d_weights[columns[entry], label] += scales[text] * upstream[text, label]


@kernel
def _add_to_cells(columns, starts, scales, upstream, firsts, labels, slopes):  # type: ignore[no-untyped-def]
    for text in range(len(scales)):
        for entry in range(starts[text], starts[text + 1]):
            for cell in range(firsts[columns[entry]], firsts[columns[entry] + 1]):
                slopes[cell] += scales[text] * upstream[text, labels[cell]]


class Cells(NamedTuple):
    """Some cells of a table of weights, by rising place: those of column r are ``firsts[r]`` to ``firsts[r + 1]``, and
    ``labels`` int64[cells] says of each which class it is of. ``places`` int64[cells] count along the flat table.
    """

    places: NDArray[np.int64]
    firsts: NDArray[np.int64]
    labels: NDArray[np.int64]


def cells_at(places: NDArray[np.int64], columns: int, labels: int) -> Cells:
    """The cells at these rising ``places`` of a table of so many ``columns`` and ``labels``."""
    return Cells(places, np.searchsorted(places, np.arange(columns + 1) * labels), places % labels)


def add_slopes(features: WideFeatures, upstream: Tensor, slopes: Tensor, cells: Cells | None = None) -> None:
    """Add to ``slopes`` what ``upstream`` float32[texts, C], the logits' gradient, is for weights float32[columns, C].

    With ``cells``, ``slopes`` float32[cells] are of these weights alone.
    """
    own = features.columns, features.starts, features.scales, upstream.contiguous().numpy()
    if cells is None:
        _add_to_rows(*own, slopes.numpy())
    else:
        _add_to_cells(*own, cells.firsts, cells.labels, slopes.numpy())


def texts_of(features: WideFeatures, first: int, end: int) -> WideFeatures:
    """The features of texts ``first`` to ``end`` (excluded)."""
    starts = features.starts[first : end + 1]
    return WideFeatures(features.columns[starts[0] : starts[-1]], starts - starts[0], features.scales[first:end])


class _SumRows(torch.autograd.Function):
    """``float32[texts, C]`` from weights ``float32[columns, C]``: the scaled sum of each text's rows."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, features: WideFeatures) -> Tensor:
        ctx.features, ctx.shape = features, weights.shape
        sums = np.zeros((len(features.scales), weights.shape[1]), np.float32)
        _sum_rows(features.columns, features.starts, features.scales, weights.numpy(), sums)
        return torch.from_numpy(sums)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        d_weights = torch.zeros(ctx.shape)
        add_slopes(ctx.features, upstream[0], d_weights)
        return d_weights, None


def wide_logits(weights: Tensor, bias: Tensor, features: WideFeatures) -> Tensor:
    """``float32[texts, C]`` from ``weights`` float32[V + 2 + B, C] and ``bias`` float32[C]."""
    sums: Tensor = _SumRows.apply(weights, features)
    return sums + bias
