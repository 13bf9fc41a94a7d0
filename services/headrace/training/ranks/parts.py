"""A rank's share of the rows of one training, and what all ranks agreed on about the whole."""

from __future__ import annotations

import msgspec

from headrace.training.splitting import Split


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
