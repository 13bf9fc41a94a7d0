"""Structured pruning: a smaller network of the same kind, which needs no sparse kernels to be faster.

What is dropped is what changes logits least over the training rows. A word or bigram moves them by its wide weights
each time it occurs, a filter by its head's weights as far as its feature varies; what all labels share moves nothing.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from headrace.model.network import FIRST_WORD_ROW, Network, keep_rows
from headrace.training.compress.counts import Counts, without_words
from headrace.training.compress.low_rank import with_dimensions
from headrace.training.compress.plan import Plan

_CELLS_AT_ONCE = 2**20


def apply_plan(network: Network, plan: Plan, counts: Counts) -> Network:
    """What ``plan`` keeps of ``network``, by falling training frequency as before; ``counts`` are of this network.

    A dropped word is an unknown word from then on; what a dropped filter adds on average goes into the head's bias.
    """
    words = _most(_importance(network.wide_words[FIRST_WORD_ROW:], counts.words[FIRST_WORD_ROW:]), plan.words)
    bigrams = _most(_importance(network.wide_bigrams, counts.bigrams), plan.bigrams)
    smaller = keep_rows(_keep_filters(network, plan.filters, counts), words, bigrams)
    return with_dimensions(smaller, plan.dimensions, without_words(counts, words))


def _importance(weights: NDArray[np.float32], occurrences: NDArray[np.int64]) -> NDArray[np.float64]:
    """By what the rows' logits move, in the root of the mean square: float64[n] from weights float32[n, C]."""
    return np.sqrt(occurrences) * _spread(weights)


def _spread(weights: NDArray[np.float32]) -> NDArray[np.float64]:
    spread = np.empty(len(weights))
    # In pieces: the copies in float64 of a table for many labels would be the largest of a training.
    count = max(1, _CELLS_AT_ONCE // weights.shape[1])
    for first in range(0, len(weights), count):
        rows = weights[first : first + count]
        centred = rows - rows.mean(axis=1, keepdims=True)
        spread[first : first + count] = np.linalg.norm(centred.astype(np.float64), axis=1)
    return spread


def _most(importance: NDArray[np.float64], share: float) -> NDArray[np.int64]:
    """The places of the ``share`` with the greatest importance, in order; of equals the first."""
    kept = np.argsort(-importance, kind="stable")[: round(share * len(importance))]
    return np.sort(kept)


def _keep_filters(network: Network, count: int, counts: Counts) -> Network:
    filters = len(network.filters[0])
    if filters <= count:
        return network
    importance = (_spread(network.head.T) * counts.deviation).reshape(len(network.widths), filters)
    kept = [_most(of_width, count / filters) for of_width in importance]
    places = np.concatenate([of_width + place * filters for place, of_width in enumerate(kept)])
    dropped = np.setdiff1d(np.arange(len(network.widths) * filters), places)
    return replace(
        network,
        filters=tuple(before[of_width] for before, of_width in zip(network.filters, kept, strict=True)),
        filter_bias=network.filter_bias[places],
        head=np.ascontiguousarray(network.head[:, places]),
        head_bias=network.head_bias + network.head[:, dropped] @ counts.mean[dropped],
    )
