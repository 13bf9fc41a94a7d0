"""A TCP proxy between workers and one broker: it cuts, delays and swallows, and reports what passes.

It forwards whole frames of Kafka's protocol, so a hook can act exactly before a produce request reaches the broker, or
between its acknowledgement and the worker. A frame is a length (int32) and so many bytes. A request begins with its API
key (int16), version (int16), correlation id (int32) and client id (a string with an int16 length); a reply begins with
the correlation id of its request. https://kafka.apache.org/protocol
"""

from __future__ import annotations

import asyncio
import enum
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

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


class Way(enum.Enum):
    """Which way a frame goes."""

    TO_BROKER = "to broker"
    FROM_BROKER = "from broker"


class Passing(Struct, frozen=True):
    """A frame on its way: a request, or the reply to ``request``. ``size`` is in bytes."""

    way: Way
    request: Request
    size: int


Hook = Callable[[Passing], Awaitable[bool]]
"""Sees a frame before it is forwarded; false keeps it, and the connection stays open."""


class Proxy:
    """Listens on ``port`` of 127.0.0.1 and forwards to ``target``. Faults are attributes, to be set at any time."""

    def __init__(self, target: int) -> None:
        self.port = 0
        self.delay_s = 0.0
        """Of each frame, both ways."""
        self.swallows = False
        """Frames vanish while connections stay open, as behind a firewall that forgot them."""
        self.refuses = False
        """New connections are closed at once."""
        self.hook: Hook | None = None
        self._target = target
        self._writers: set[asyncio.StreamWriter] = set()

    def cut(self) -> None:
        """Reset every connection there is now."""
        for writer in self._writers:
            writer.transport.abort()

    async def serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        """One connection, from its beginning to its end."""
        if self.refuses:
            to_client.close()
            return
        try:
            broker, to_broker = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:  # the broker is away, and a client hears that by its connection's end
            to_client.close()
            return
        self._writers |= {to_client, to_broker}
        asked: dict[int, Request] = {}
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._requests(client, to_broker, asked))
                both.create_task(self._replies(broker, to_client, asked))
        except* (OSError, asyncio.IncompleteReadError):
            pass  # one side is gone, so the other has to go too
        finally:
            for writer in (to_client, to_broker):
                self._writers.discard(writer)
                writer.transport.abort()

    async def _requests(
        self, client: asyncio.StreamReader, to_broker: asyncio.StreamWriter, asked: dict[int, Request]
    ) -> None:
        while True:
            frame = await read_frame(client)
            request = request_of(frame)
            asked[request.correlation] = request
            await self._pass(frame, Passing(Way.TO_BROKER, request, len(frame)), to_broker)

    async def _replies(
        self, broker: asyncio.StreamReader, to_client: asyncio.StreamWriter, asked: dict[int, Request]
    ) -> None:
        while True:
            frame = await read_frame(broker)
            request = asked.pop(correlation_of(frame))
            await self._pass(frame, Passing(Way.FROM_BROKER, request, len(frame)), to_client)

    async def _pass(self, frame: bytes, passing: Passing, to: asyncio.StreamWriter) -> None:
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        if self.swallows or (self.hook is not None and not await self.hook(passing)):
            return
        to.write(frame)
        await to.drain()


@asynccontextmanager
async def proxied(target: int) -> AsyncIterator[Proxy]:
    """Keep a proxy to a port of 127.0.0.1 while the block runs."""
    proxy = Proxy(target)
    served: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(proxy.serve(reader, writer))
        served.add(task)
        task.add_done_callback(served.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0, limit=1 << 22)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        for task in tuple(served):
            task.cancel()
        with suppress(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.gather(*served, return_exceptions=True)
