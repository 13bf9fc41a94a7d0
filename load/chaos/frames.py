"""What a proxy can tell of Kafka's protocol from the outside: whole frames, and of a request its kind and client.

A frame is a length (int32) and so many bytes. A request begins with its API key (int16), version (int16), correlation
id (int32) and client id (a string with an int16 length); a reply begins with the correlation id of its request.
https://kafka.apache.org/protocol
"""

from __future__ import annotations

import asyncio
import struct

from msgspec import Struct

PRODUCE, FETCH, METADATA, OFFSET_COMMIT, OFFSET_FETCH = 0, 1, 3, 8, 9
JOIN_GROUP, HEARTBEAT, LEAVE_GROUP, SYNC_GROUP = 11, 12, 13, 14
OF_GROUPS = frozenset({OFFSET_COMMIT, OFFSET_FETCH, JOIN_GROUP, HEARTBEAT, LEAVE_GROUP, SYNC_GROUP})
"""What only a group's coordinator answers."""

_HEADER = struct.Struct(">hhih")
_LENGTH = struct.Struct(">i")
_CORRELATION = struct.Struct(">i")


class Request(Struct, frozen=True):
    """The header of a request. ``api`` is its API key."""

    api: int
    correlation: int
    client: str


async def read_frame(stream: asyncio.StreamReader) -> bytes:
    """The next frame, its length included. Raises IncompleteReadError where the stream ends."""
    length = await stream.readexactly(_LENGTH.size)
    return length + await stream.readexactly(_LENGTH.unpack(length)[0])


def request_of(frame: bytes) -> Request:
    """The header of a request's frame."""
    api, _, correlation, length = _HEADER.unpack_from(frame, _LENGTH.size)
    begin = _LENGTH.size + _HEADER.size
    return Request(api, correlation, frame[begin : begin + max(0, length)].decode(errors="replace"))


def correlation_of(frame: bytes) -> int:
    """Which request a reply's frame answers."""
    number: int = _CORRELATION.unpack_from(frame, _LENGTH.size)[0]
    return number
