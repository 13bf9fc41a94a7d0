"""What is learnt from machine rows: what each counts and how far its neighbours change it, which validation chooses.

Too few validation rows can't choose. Then the human rows are divided into folds, and each is answered by a fit that has
not learnt it (cross-validation; Stone 1974).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.learning.data.files import Rows
from headrace.learning.data.split import Parts
from headrace.learning.data.spreading import MOST_TEXTS, Neighbours, find_neighbours, spread
from headrace.learning.data.taught import Taught
from headrace.learning.data.validation import text_keys
from headrace.learning.data.vocabulary import Embed
from headrace.learning.distributed.collectives import Exchange
from headrace.learning.evaluate import Interval
from headrace.learning.fit.hyperparameters import TeachingRecipe


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """What the validation rows say of machine rows that each count ``weight`` and have the share ``spread`` of their
    neighbours' labels: the best epoch's figures.

    ``interval``: the 95 % interval of the accuracy. Each of the ``rows`` was answered by a network that had not learnt
    it; with ``folds`` they are all human rows, in turn.
    """

    weight: float
    spread: float
    rows: int
    folds: int
    accuracy: float
    interval: Interval
    cross_entropy: float


class Fold(NamedTuple):
    """A division of the human rows: ``train`` are fitted, and ``valid`` are validated on. ``known`` bool[rows] says of
    training and validation rows, in this order, which those to be fitted are.
    """

    train: Rows
    valid: Rows
    known: NDArray[np.bool_]


class Option(NamedTuple):
    """What a machine row counts, and the share of its neighbours' labels in its own."""

    weight: float
    spread: float


NOTHING = Option(0.0, 0.0)
"""Machine rows are left out."""


def as_split(parts: Parts) -> Fold:
    """The division that the split has made."""
    train, valid = parts.split.train, parts.split.valid
    return Fold(train, valid, np.arange(len(train) + len(valid)) < len(train))


def cross_folds(parts: Parts, count: int) -> list[Fold]:
    """``count`` divisions of the human rows, by the texts alone: the same however many ranks hold them."""
    rows = parts.split.train + parts.split.valid
    # Not the bytes by which an unkeyed split has already chosen.
    numbers = np.array([int.from_bytes(key[8:16], "big") % count for key in text_keys(rows.texts)], np.int64)
    return [
        Fold(
            rows.take(np.flatnonzero(numbers != fold).tolist()),
            rows.take(np.flatnonzero(numbers == fold).tolist()),
            numbers != fold,
        )
        for fold in range(count)
    ]


class Lessons:
    """The machine rows of this rank's ``parts`` as each :class:`Option` has them. Made and asked on all ranks alike.

    ``embed``: a teacher's view of texts, by which their neighbours are found; without it nothing is spread.
    """

    def __init__(self, parts: Parts, embed: Embed | None, exchange: Exchange) -> None:
        self._parts, self._exchange = parts, exchange
        self._human = parts.split.train + parts.split.valid
        texts = parts.taught.texts + self._human.texts
        spreads = embed is not None and sum(exchange.gather(len(texts), int)) <= MOST_TEXTS
        self._neighbours: Neighbours | None = None
        if embed is not None and spreads:
            self._neighbours = find_neighbours(embed(texts), exchange)

    def options(self, teaching: TeachingRecipe) -> Iterator[Option]:
        """All that machine rows may be, :data:`NOTHING` left out."""
        for weight in teaching.weights:
            for share in teaching.spreads if self._neighbours is not None else (0.0,):
                if weight:
                    yield Option(weight, share)

    def taught(self, option: Option, known: NDArray[np.bool_]) -> Taught | None:
        """The machine rows by ``option``, where the labels of the ``known`` human rows may be looked at; None for
        :data:`NOTHING`.
        """
        taught = self._parts.taught
        if not option.weight:
            return None
        if option.spread and self._neighbours is not None:
            scores = self._spread(self._neighbours, option.spread, known)
            taught = msgspec.structs.replace(taught, probabilities=scores)
        weights = np.ones(len(taught), np.float32) if taught.weights is None else taught.weights
        return msgspec.structs.replace(taught, weights=weights * np.float32(option.weight))

    def _spread(self, neighbours: Neighbours, share: float, known: NDArray[np.bool_]) -> NDArray[np.float32]:
        taught = self._parts.taught.of_classes(self._parts.labels)
        places = {label: place for place, label in enumerate(self._parts.labels)}
        human = np.zeros((len(self._human), len(places)), np.float32)
        human[np.arange(len(human)), [places[label] for label in self._human.labels]] = 1
        human[~known] = 0
        unknown = np.concatenate([np.zeros(len(taught), np.bool_), ~known])
        scores = np.concatenate([taught.probabilities, human])
        return spread(scores, neighbours, unknown, share, self._exchange)[: len(taught)]
