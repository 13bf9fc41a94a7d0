"""Reading a partition of the answer log: every request once, repeats dropped, holes said.

The answer to the request at offset o of requests partition p stands in results partition p. Workers that were
stopped or frozen may append an answer again, behind newer ones; one integer a partition is enough to drop these.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec


class Hole(msgspec.Struct, frozen=True):
    """Requests with offsets ``first`` to ``last``, both included, among which at least ``last`` has no answer."""

    first: int
    last: int


class Reading(msgspec.Struct, frozen=True):
    """What an answer is to its reader: accepted or a repeat, and the hole in front of it, if any."""

    accepted: bool
    hole: Hole | None = None


_ACCEPTED = Reading(accepted=True)
_REPEAT = Reading(accepted=False)


class PartitionReader:
    """Decides for one results partition. ``highest`` is the highest request offset accepted so far.

    None means that nothing is known yet (a reader that starts at the end of the log, or on a log whose
    beginning is gone): then the first answer is accepted whatever came before it.
    """

    __slots__ = ("highest",)

    def __init__(self, highest: int | None = None) -> None:
        self.highest = highest

    def read(self, offset: int, after: int) -> Reading:
        """Take the answer to request ``offset``, whose predecessor in the requests log is ``after`` (-1: none)."""
        highest = self.highest
        if highest is None:
            self.highest = offset
            return _ACCEPTED
        if offset <= highest:
            return _REPEAT
        self.highest = offset
        if after > highest:
            return Reading(accepted=True, hole=Hole(highest + 1, after))
        return _ACCEPTED


def recover(offsets_before_position: Iterable[int]) -> PartitionReader:
    """A reader that starts again, from the request offsets of the answers just before its position.

    Look back over at least as many answers as a worker does (``look_back`` in :mod:`headrace.core.resume`).
    """
    return PartitionReader(max(offsets_before_position, default=None))
