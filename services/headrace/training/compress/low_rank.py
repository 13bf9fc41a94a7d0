"""Words of fewer dimensions with nearly the same products with the filters."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from headrace.model.network import PADDING_ROW, Network


def with_dimensions(network: Network, dimensions: int, occurrences: NDArray[np.int64]) -> Network:
    """``network`` with words and filters of ``dimensions``, unless they have no more already.

    Only the products of words and filters matter to an answer. Of all words of so few dimensions these have the least
    squared error of the products, a word counting once more than ``occurrences`` int64[V + 2] says. Source: Eckart and
    Young, The Approximation of One Matrix by Another of Lower Rank, Psychometrika 1936: the products are projected onto
    their first right singular vectors, which become the filters.

    Then words and filters are turned alike by a cosine transform. The products stay; the first dimension, which would
    be the largest by far, is spread over all, so that few bits of a row with one step lose less.
    """
    if network.words.shape[1] <= dimensions:
        return network
    words = network.words.astype(np.float64)
    columns = np.concatenate([_columns(filters) for filters in network.filters], axis=1)
    triangle = np.linalg.qr(np.sqrt(occurrences + 1.0)[:, None] * words, mode="r")
    _, _, vectors = np.linalg.svd(triangle @ columns, full_matrices=False)
    # Fewer words or filters than dimensions have fewer vectors; the dimensions that are left are zero.
    basis = np.zeros((dimensions, columns.shape[1]))
    basis[: len(vectors)] = vectors[:dimensions]
    basis = _cosines(dimensions) @ basis
    projected = (words @ (columns @ basis.T)).astype(np.float32)
    projected[PADDING_ROW] = 0
    filters = []
    first = 0
    for width, before in zip(network.widths, network.filters, strict=True):
        taps = basis[:, first : first + width * len(before)].reshape(dimensions, width, len(before))
        filters.append(np.ascontiguousarray(taps.transpose(2, 1, 0), dtype=np.float32))
        first += width * len(before)
    return replace(network, words=projected, filters=tuple(filters))


def _cosines(count: int) -> NDArray[np.float64]:
    """The orthonormal matrix of the discrete cosine transform (DCT-II), ``float64[count, count]``."""
    places = np.arange(count)
    cosines: NDArray[np.float64] = np.sqrt(2 / count) * np.cos(np.pi / count * (places[:, None] + 0.5) * places)
    cosines[:, 0] = np.sqrt(1 / count)
    return cosines


def _columns(filters: NDArray[np.float32]) -> NDArray[np.float64]:
    """``float64[D, width x F]`` from float32[F, width, D]."""
    return filters.transpose(2, 1, 0).reshape(filters.shape[2], -1).astype(np.float64)
