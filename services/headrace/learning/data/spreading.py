"""Spread labels over neighbouring texts: what a teacher says of texts that it sees near each other is made alike.

A teacher that learnt from few rows is right about most texts of a cluster and wrong about some at its edge; their
neighbours tell. Source: Zhou, Bousquet, Lal, Weston and Schölkopf, Learning with Local and Global Consistency, NIPS
2003, over the nearest neighbours in the teacher's view and with weights that sum to one.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.learning.distributed.collectives import Exchange

MOST_TEXTS = 50_000
"""Of all ranks. Finding neighbours takes the square of it: minutes for so many."""
_NEIGHBOURS = 10
_SHARPNESS = 10.0
_ROUNDS = 10
_AT_ONCE = 1024


class Neighbours(msgspec.Struct, frozen=True):
    """Of each of this rank's n texts the ``places`` int64 (n, k) of the nearest among those of all ranks, and what each
    counts, ``weights`` float32 (n, k), by the cosine of the two views.
    """

    places: NDArray[np.int64]
    weights: NDArray[np.float32]


def find_neighbours(views: NDArray[np.floating], exchange: Exchange) -> Neighbours:
    """The neighbours of this rank's texts, whose ``views`` (n, d) are a teacher's. A collective."""
    own = np.asarray(views, np.float32)
    own = own / np.maximum(np.linalg.norm(own, axis=1, keepdims=True), np.float32(1e-12))
    told = exchange.gather(own, NDArray[np.float32])
    everyone = np.concatenate(told)
    first = sum(len(one) for one in told[: exchange.rank])
    count = min(_NEIGHBOURS, len(everyone) - 1)
    places = np.empty((len(own), count), np.int64)
    weights = np.empty((len(own), count), np.float32)
    for begin in range(0, len(own), _AT_ONCE):
        near = own[begin : begin + _AT_ONCE] @ everyone.T
        rows = np.arange(len(near))
        near[rows, first + begin + rows] = -np.inf
        # Sorted, so that sums are taken in one order.
        found = np.sort(np.argpartition(-near, count - 1, axis=1)[:, :count], axis=1)
        places[begin : begin + len(near)] = found
        weights[begin : begin + len(near)] = np.exp(_SHARPNESS * (near[rows[:, None], found] - 1))
    return Neighbours(places, weights)


def spread(
    scores: NDArray[np.float32],
    neighbours: Neighbours,
    unknown: NDArray[np.bool_],
    share: float,
    exchange: Exchange,
    rounds: int = _ROUNDS,
) -> NDArray[np.float32]:
    """``float32 (n, C)``: this rank's ``scores`` with the ``share`` of each text that its neighbours have in it.

    ``unknown`` bool (n,): texts of no known label, such as those validated on; they give their neighbours nothing. A
    collective.
    """
    silent = np.concatenate(exchange.gather(unknown, NDArray[np.bool_]))
    weights = np.where(silent[neighbours.places], np.float32(0), neighbours.weights)
    weights = weights / np.maximum(weights.sum(axis=1, keepdims=True), np.float32(1e-12))
    own = scores
    for _ in range(rounds):
        everyone = np.concatenate(exchange.gather(own, NDArray[np.float32]))
        near = np.zeros_like(own)
        for neighbour in range(weights.shape[1]):
            near += weights[:, neighbour, None] * everyone[neighbours.places[:, neighbour]]
        # A text whose neighbours are all unknown keeps what it has.
        near = np.where(near.sum(axis=1, keepdims=True) > 0, near, own)
        own = np.float32(1 - share) * scores + np.float32(share) * near
    summed: NDArray[np.float32] = own / np.maximum(own.sum(axis=1, keepdims=True), np.float32(1e-12))
    return summed
