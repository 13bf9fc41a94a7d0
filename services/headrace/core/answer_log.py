"""Reading a partition of the answer log: every request once, repeats dropped, holes said.

The answer to the request at offset o of requests partition p stands in results partition p. Workers that were
stopped or frozen may append an answer again, behind newer ones; one integer a partition is enough to drop these.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec
from msgspec import Meta

from headrace.core.errors import UserError


class Place(msgspec.Struct, frozen=True):
    """Where a reader of one results partition goes on. Keep both together, and both with what was made of the answers.

    ``position`` is the offset in the results partition to read next, ``highest`` the highest request offset accepted
    in front of it. None means that it is not known: then a reader looks back.
    """

    position: Annotated[int, Meta(ge=0)]
    highest: Annotated[int, Meta(ge=0)] | None = None


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


def encode_positions(positions: Mapping[int, Place]) -> bytes:
    """Places by partition as JSON, to be stored: ``{"0": {"position": 12, "highest": 9}}``."""
    return msgspec.json.encode(positions)


def decode_positions(text: bytes | str) -> dict[int, Place]:
    """What :func:`encode_positions` wrote, or positions alone: ``{"0": 12}``. Raises a UserError in words."""
    try:
        found = msgspec.json.decode(text, type=dict[int, Annotated[int, Meta(ge=0)] | Place])
    # A text with half a character in it is a UnicodeEncodeError, and what is no text at all a TypeError.
    except (msgspec.DecodeError, UnicodeError, TypeError) as error:
        raise UserError(
            f"This holds no positions of a reader: {error}. "
            'They look like {"0": {"position": 12, "highest": 9}}, by partition.'
        ) from error
    return {partition: as_place(one) for partition, one in found.items()}


def as_place(one: int | Place) -> Place:
    """A place, also of a position alone."""
    return one if isinstance(one, Place) else Place(one)


def encode_metadata(place: Place) -> str:
    """What a group's reader commits beside the position: ``{"position":12,"highest":9}``."""
    return msgspec.json.encode(place).decode()


def committed_place(position: int, metadata: str) -> Place:
    """The place that a group committed: without its highest when the metadata is none of ours or of another position.

    That is so of commits by other tools, of those before headrace wrote metadata, and on the embedded broker.
    """
    try:
        place = msgspec.json.decode(metadata, type=Place)
    except msgspec.DecodeError:
        return Place(position)
    return place if place.position == position else Place(position)
