"""Reading a partition of the answer log: each request once, repeats dropped, holes reported.

The answer to the request at offset o of requests partition p is in results partition p. A worker that was stopped or
frozen may append an answer again, behind newer ones. One integer for each partition is enough to drop these repeats.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec
from msgspec import Meta

from headrace.core.errors import UserError


class Place(msgspec.Struct, frozen=True):
    """Where a reader of a results partition goes on. Store both fields together, and together with the results of
    processing.

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
    """How a reader takes an answer: accepted or a repeat, and the hole in front of it, if any."""

    accepted: bool
    hole: Hole | None = None


_ACCEPTED = Reading(accepted=True)
_REPEAT = Reading(accepted=False)


class PartitionReader:
    """Decides for one results partition. ``highest`` is the highest request offset accepted so far.

    None means that nothing is known yet: the reader starts at the end of the log, or the log's beginning is gone. Then
    the first answer is accepted, whatever came before it.
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
    """Places by partition as JSON, for storing: ``{"0": {"position": 12, "highest": 9}}``."""
    return msgspec.json.encode(positions)


def decode_positions(text: bytes | str) -> dict[int, Place]:
    """Decode the JSON of :func:`encode_positions`, or of positions alone: ``{"0": 12}``. Raises a UserError in
    words.
    """
    try:
        found = msgspec.json.decode(text, type=dict[int, Annotated[int, Meta(ge=0)] | Place])
    # A text with a lone surrogate raises UnicodeEncodeError, and anything but a text TypeError.
    except (msgspec.DecodeError, UnicodeError, TypeError) as error:
        raise UserError(
            f"This holds no positions of a reader: {error}. "
            'They look like {"0": {"position": 12, "highest": 9}}, by partition.'
        ) from error
    return {partition: as_place(one) for partition, one in found.items()}


def as_place(one: int | Place) -> Place:
    """The place, or one made of a position alone."""
    return one if isinstance(one, Place) else Place(one)


def encode_metadata(place: Place) -> str:
    """The metadata that a reader of a group commits beside its position: ``{"position":12,"highest":9}``."""
    return msgspec.json.encode(place).decode()


def committed_place(position: int, metadata: str) -> Place:
    """The place that a group committed. Its highest is None when the metadata is not ours or belongs to another
    position.

    Commits of other tools have no such metadata, nor have those on the embedded broker.
    """
    try:
        place = msgspec.json.decode(metadata, type=Place)
    except msgspec.DecodeError:
        return Place(position)
    return place if place.position == position else Place(position)
