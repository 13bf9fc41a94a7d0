"""What is asked and found where labels are doubted: rows whose label is probably wrong, for people to look at again.

``headrace.learning.suspects`` finds them, on its own or as a program; this loads no torch.
"""

from __future__ import annotations

import msgspec

from headrace.files.annotations import Doubted

SOURCE = "suspect"
"""The source of a label that somebody gave because the one before was doubted."""
SCORER = "out-of-fold"


class Labelled(msgspec.Struct, frozen=True, kw_only=True):
    """A label to be doubted, as :class:`Doubted` will have it."""

    text: str
    label: str
    number: int | None = None
    id: str | None = None
    source: str | None = None
    labelled_at_ms: int | None = None


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """The suspects, the worst first, among ``rows`` labels. ``dropped`` says what no training would learn from,
    ``alone`` how many rows have a label that no other fold has.
    """

    suspects: list[Doubted]
    rows: int
    dropped: str
    alone: int


class Asked(msgspec.Struct, frozen=True):
    """What the program is asked: these labels, and at most ``count`` suspects."""

    labels: list[Labelled]
    count: int


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the program gives: what was found, or in words why nothing can be."""

    found: Found | None = None
    error: str | None = None
