"""What is learnt from machine rows: what each counts and how far its neighbours change it, which validation chooses.

Too few validation rows can't choose. Then the human rows are divided into folds, and each is answered by a fit that has
not learnt it (cross-validation; Stone 1974).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from headrace.learning.data.files import Rows
from headrace.learning.data.split import Parts
from headrace.learning.data.spreading import MOST_TEXTS, Neighbours, find_neighbours, spread
from headrace.learning.data.taught import Taught
from headrace.learning.data.validation import text_keys
from headrace.learning.data.vocabulary import Embed
from headrace.learning.distributed.collectives import Exchange
from headrace.learning.evaluate import Interval
from headrace.learning.fit.blend import fit_scale


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """What the validation rows say of machine rows that each count ``weight`` and have the share ``spread`` of their
    neighbours' labels: the best epoch's figures.

    ``interval``: the 95 % interval of the accuracy. Each of the ``rows`` was answered by a network that had not learnt
    it; with several ``folds`` they are all human rows, in turn. ``apart``: the teacher had not learnt it either, as far
    as this training can tell.
    """

    weight: float
    spread: float
    rows: int
    folds: int
    accuracy: float
    interval: Interval
    cross_entropy: float
    apart: bool


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


def cross_folds(parts: Parts, count: int, exchange: Exchange) -> list[Fold]:
    """``count`` divisions of the human rows, by the texts alone: the same however many ranks hold them.

    A fit can't give a label that it has not learnt, so a row whose label no other fold has says nothing about the fit.
    Such a row is fitted in every fold. Where every row is one no row would be validated.
    """
    rows = parts.split.train + parts.split.valid
    # Not the bytes by which an unkeyed split has already chosen.
    numbers = np.array([int.from_bytes(key[8:16], "big") % count for key in text_keys(rows.texts)], np.int64)
    own: dict[str, list[int]] = {}
    for label, number in set(zip(rows.labels, numbers.tolist(), strict=True)):
        own.setdefault(label, []).append(number)
    folds_of: dict[str, set[int]] = {}
    for told in exchange.gather(own, dict[str, list[int]]):
        for label, of_rank in told.items():
            folds_of.setdefault(label, set()).update(of_rank)
    lone = np.array([len(folds_of[label]) == 1 for label in rows.labels], np.bool_)
    return [_divide(rows, (numbers != fold) | lone) for fold in range(count)]


def _divide(rows: Rows, known: NDArray[np.bool_]) -> Fold:
    return Fold(rows.take(np.flatnonzero(known).tolist()), rows.take(np.flatnonzero(~known).tolist()), known)


Reteach = Callable[[Rows], NDArray[np.floating]]
"""What a teacher that has learnt from these human rows alone says of the machine rows' texts: scores (texts, classes)
over the sorted labels of the parts. A collective.
"""


class Lessons:
    """The machine rows of this rank's ``parts`` as each :class:`Option` has them. Made and asked on all ranks alike.

    ``embed``: a teacher's view of texts, by which their neighbours are found; without it nothing is spread.
    ``reteach``: where the teacher has learnt from human rows. Rows that it has learnt can't be validated on, for it
    has told the network about them; so the machine rows of a fold are labelled afresh.
    """

    def __init__(self, parts: Parts, embed: Embed | None, reteach: Reteach | None, exchange: Exchange) -> None:
        self._parts, self._reteach, self._exchange = parts, reteach, exchange
        self._taught = parts.taught.of_classes(parts.labels)
        self._human = parts.split.train + parts.split.valid
        self._places = {label: place for place, label in enumerate(parts.labels)}
        self._told: dict[bytes, NDArray[np.float32]] = {}
        texts = parts.taught.texts + self._human.texts
        spreads = embed is not None and sum(exchange.gather(len(texts), int)) <= MOST_TEXTS
        self._neighbours: Neighbours | None = None
        if embed is not None and spreads:
            self._neighbours = find_neighbours(embed(texts), exchange)

    def best_spread(self, folds: Sequence[Fold], shares: Sequence[float]) -> float:
        """The one of ``shares`` by which the neighbours of validation rows are labelled most like these.

        By cross entropy, calibrated: spreading makes labels less sure of themselves.
        """
        if self._neighbours is None or len(shares) < 2:
            return 0.0 if self._neighbours is None else shares[0]
        losses = []
        for share in shares:
            own_logits, own_targets = [], []
            for fold in folds:
                voted = self._voted(self._neighbours, self._scores(fold.known), share, fold.known)
                own_logits.append(np.log(np.maximum(voted, np.float32(1e-4))))
                own_targets.append([self._places[label] for label in fold.valid.labels])
            told = self._exchange.gather((own_logits, own_targets), tuple[list[NDArray[np.float32]], list[list[int]]])
            logits = torch.from_numpy(np.concatenate([one for of, _ in told for one in of]))
            targets = torch.tensor([one for _, of in told for fold in of for one in fold])
            scale = fit_scale(logits, targets)
            losses.append(float(torch.nn.functional.cross_entropy(scale * logits, targets)))
        # Rank 0 decides: sums on another kind of machine may end in other bits.
        return shares[self._exchange.gather(int(np.argmin(losses)), int)[0]]

    def taught(self, option: Option, known: NDArray[np.bool_]) -> Taught | None:
        """The machine rows by ``option``, where the labels of the ``known`` human rows may be looked at; None for
        :data:`NOTHING`.
        """
        taught = self._taught
        if not option.weight:
            return None
        scores = self._scores(known)
        if option.spread and self._neighbours is not None:
            scores = self._spread(self._neighbours, scores, option.spread, known)
        weights = np.ones(len(taught), np.float32) if taught.weights is None else taught.weights
        return msgspec.structs.replace(taught, probabilities=scores, weights=weights * np.float32(option.weight))

    def _scores(self, known: NDArray[np.bool_]) -> NDArray[np.float32]:
        """What the teacher says once it has learnt from the ``known`` rows alone."""
        if self._reteach is None or known.all():
            return self._taught.probabilities
        name = known.tobytes()
        if name not in self._told:
            rows = self._human.take(np.flatnonzero(known).tolist())
            self._told[name] = np.asarray(self._reteach(rows), np.float32)
        return self._told[name]

    def _spread(
        self, neighbours: Neighbours, machine: NDArray[np.float32], share: float, known: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        human = np.zeros((len(self._human), len(self._places)), np.float32)
        human[np.arange(len(human)), [self._places[label] for label in self._human.labels]] = 1
        human[~known] = 0
        unknown = np.concatenate([np.zeros(len(machine), np.bool_), ~known])
        return spread(np.concatenate([machine, human]), neighbours, unknown, share, self._exchange)[: len(machine)]

    def _voted(
        self, neighbours: Neighbours, machine: NDArray[np.float32], share: float, known: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """What their neighbours among the machine rows say of the human rows that are not ``known``."""
        scores = self._spread(neighbours, machine, share, known) if share else machine
        human = np.zeros((len(known), scores.shape[1]), np.float32)
        unknown = np.arange(len(machine) + len(known)) >= len(machine)
        voted = spread(np.concatenate([scores, human]), neighbours, unknown, 1.0, self._exchange, rounds=1)
        return voted[len(machine) :][~known]
