"""A rank's share of the rows of one training, and what all ranks agreed on about the whole."""

from __future__ import annotations

import hashlib
from collections.abc import Collection

import msgspec

from headrace.learning.data.files import Rows
from headrace.learning.data.split import UNKEYED, Split


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """``split`` holds this rank's rows only; the rest is the same on every rank.

    ``labels``: every label among the training and validation rows of all ranks, sorted. ``rows``: training and
    validation rows of all ranks. ``digest``: of all texts and labels. ``dropped``: how many records of all ranks were
    left out, by reason.
    """

    split: Split
    labels: tuple[str, ...]
    rows: int
    digest: str
    dropped: dict[str, int]
    splitting: str = UNKEYED.id
    """The id of the split."""
    holdout: str | None = None
    """Digest of the texts that were left out because the gate judges by them."""
    test_places: tuple[tuple[int, int], ...] = ()
    """Partition and offset of each of this rank's test rows; empty where they come from files."""
    unlearnt: tuple[str, ...] = ()
    """Labels that are named somewhere in the data and have no row to learn from, sorted."""


def whole(
    split: Split, dropped: dict[str, int] | None = None, splitting: str = UNKEYED.id, named: Collection[str] = ()
) -> Parts:
    """All rows as one rank has them; ``named`` are all labels of the data, before anything was left out."""
    learnt = split.train + split.valid
    labels = frozenset(learnt.labels)
    return Parts(
        split=split,
        labels=tuple(sorted(labels)),
        unlearnt=tuple(sorted(frozenset(named) - labels)),
        rows=len(learnt),
        digest=hashlib.sha256(msgspec.msgpack.encode(learnt)).hexdigest(),
        dropped=dropped or {},
        splitting=splitting,
    )


def share(parts: Parts, rank: int, world: int) -> Parts:
    """Every ``world``-th row of each part of ``parts``, which are the rows of all ranks."""

    def own(rows: Rows) -> Rows:
        return rows.take(list(range(rank, len(rows), world)))

    split = parts.split
    own_split = msgspec.structs.replace(split, train=own(split.train), valid=own(split.valid), test=own(split.test))
    return msgspec.structs.replace(parts, split=own_split)
