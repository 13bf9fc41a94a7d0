"""What can be set of the gate: the limits of core, and how much is measured to judge by them."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from headrace.core.fields import Line, Place
from headrace.core.gate import Limits


class GateSettings(Limits, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The limits (see :class:`headrace.core.gate.Limits`), and the effort."""

    holdout: Place | None = None
    """Rows that decide instead of the test rows: a path or URI of a file as `headrace train` reads it, with columns
    text and label, or topic:NAME. Whoever writes labels must not write there."""
    holdout_delimiter: Line | None = None
    """What stands between the fields of CSV there; found out where it is not set."""
    holdout_encoding: Line | None = None
    """The encoding of that file; found out where it is not set."""
    replay: Annotated[int, Meta(ge=0, le=1_000_000)] = 2000
    """How many of the last requests both versions answer; 0 for none."""
    resamples: Annotated[int, Meta(ge=100, le=100_000)] = 2000
    """Bootstrap samples behind the interval of macro-F1."""
