"""Folding: the product of every kept word with every tap of every filter, computed once when an artifact is loaded.

A convolution over embeddings is linear, so what a word adds to a window depends only on the word and its place in it.
With these products in a table, answering is: for each window add ``width`` rows, and keep the largest.

The result is the same bits on every machine. The products are sums of int8 times int8 below 2^24, which a float32
matrix product gives exactly in any order of adding; the scales are applied in float64, in one order, by operations that
IEEE 754 rounds in one way. The SHA-256 of the tables travels in the artifact and is checked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from headrace.core.errors import UserError
from headrace.model.compiling import kernel
from headrace.model.integers import MAX_DIMENSIONS, BoundsError, QuantizedNetwork, check_bounds

TABLE_LIMIT = 127
# Rows folded at once: their products stay in the cache.
_CHUNK = 256


class FoldingError(UserError):
    """The tables folded here are not those that the artifact was made with."""


def columns_of(filters: Sequence[NDArray[np.int8]]) -> NDArray[np.int8]:
    """``int8[D, taps x F]``: the filters of all widths, tap by tap in the order of the tables' columns."""
    return np.concatenate(
        [per_width.transpose(2, 1, 0).reshape(per_width.shape[2], -1) for per_width in filters], axis=1
    )


def a_tap(per_filter: NDArray[np.float32], widths: Sequence[int]) -> NDArray[np.float64]:
    """``float64[taps x F]``: what is given for each filter (``[widths x F]``), repeated for each of its taps."""
    split = np.split(per_filter.astype(np.float64), len(widths))
    return np.concatenate([np.tile(values, width) for values, width in zip(split, widths, strict=True)])


def products(words: NDArray[np.int8], columns: NDArray[np.int8]) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Chunks ``(rows, float32[rows, taps x F])`` of the exact integer products of ``words`` and ``columns``.

    Raises BoundsError when float32 could not hold the sums exactly.
    """
    if words.shape[1] > MAX_DIMENSIONS:
        raise BoundsError(f"{words.shape[1]} dimensions: above {MAX_DIMENSIONS} the products would not be exact")
    right = columns.astype(np.float32)
    for first in range(0, len(words), _CHUNK):
        rows = slice(first, min(first + _CHUNK, len(words)))
        yield rows, words[rows].astype(np.float32) @ right


def fold(network: QuantizedNetwork) -> NDArray[np.int8]:
    """The tables, ``int8[V + 2, taps, F]``, within +-127; taps are those of the first width, then the second's, ...

    Raises BoundsError when a sum of the answering path could leave its integer type, and FoldingError when the tables
    are not those that the network was quantized with.
    """
    tables = fold_unchecked(network)
    check_bounds(network, tables)
    digest = tables_digest(tables)
    if digest != network.tables_sha256:
        raise FoldingError(
            f"the tables folded here have the SHA-256 {digest}, those of the artifact's maker {network.tables_sha256}: "
            "this machine computes something else, so its answers could differ; do not use it"
        )
    return tables


def fold_unchecked(network: QuantizedNetwork) -> NDArray[np.int8]:
    """:func:`fold` without its checks, for quantizing, which derives from the tables what they are checked against."""
    columns = columns_of(network.filters)
    ratios = a_tap(network.filter_scales, network.widths) / a_tap(network.table_scales, network.widths)
    scales = network.word_steps.astype(np.float64) * network.word_unit
    tables = np.empty((len(network.words), columns.shape[1]), np.int8)
    for rows, exact in products(network.words, columns):
        _scale(exact, scales[rows], ratios, tables[rows])
    return tables.reshape(len(network.words), sum(network.widths), network.filters_a_width)


@kernel
def _scale(exact, scales, ratios, tables):  # type: ignore[no-untyped-def]
    """Write to ``tables`` int8[rows, columns] the products times both scales, rounded half to even and clipped.

    In one pass, because numpy's six over arrays of float64 take longer than the products.
    """
    for row in range(len(exact)):
        for column in range(len(ratios)):
            scaled = np.rint(np.float64(exact[row, column]) * scales[row] * ratios[column])
            tables[row, column] = np.int8(min(max(scaled, -TABLE_LIMIT), TABLE_LIMIT))


def tables_digest(tables: NDArray[np.int8]) -> str:
    """The SHA-256 of the tables' bytes, in hex."""
    return hashlib.sha256(np.ascontiguousarray(tables).data).hexdigest()
