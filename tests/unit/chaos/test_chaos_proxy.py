"""The proxy of the chaos runs between a client and a server that speak in Kafka's frames."""

from __future__ import annotations

import asyncio
import struct
from contextlib import asynccontextmanager

import pytest

from load.chaos.cluster import FETCH, PRODUCE, Way, proxied, read_frame


def frame(body: bytes) -> bytes:
    return struct.pack(">i", len(body)) + body


def request(api: int, correlation: int, client: bytes = b"w0", rest: bytes = b"...") -> bytes:
    return frame(struct.pack(">hhih", api, 9, correlation, len(client)) + client + rest)


@asynccontextmanager
async def world():
    """A server that answers each request with its correlation id, what it was asked, a proxy to it, and a client."""
    asked: list[bytes] = []

    async def answer(reader, writer):
        try:
            while True:
                found = await read_frame(reader)
                asked.append(found)
                writer.write(frame(found[8:12] + b"reply"))
        except asyncio.IncompleteReadError:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server, proxied(server.sockets[0].getsockname()[1]) as proxy:

        async def connected():
            return await asyncio.open_connection("127.0.0.1", proxy.port)

        yield proxy, asked, connected


async def replied(reader) -> int:
    return struct.unpack(">i", (await asyncio.wait_for(read_frame(reader), 5))[4:8])[0]


async def test_requests_and_replies_pass_as_they_are_and_a_hook_is_told_of_each():
    async with world() as (proxy, asked, connected):
        passed = []

        async def hook(passing):
            passed.append((passing.way, passing.request.api, passing.request.client))
            return True

        proxy.hook = hook
        reader, writer = await connected()
        writer.write(request(PRODUCE, 1) + request(FETCH, 2, b"w1", b"x" * 100_000))
        assert [await replied(reader), await replied(reader)] == [1, 2]
        assert [one[:4] for one in asked] == [one[:4] for one in (request(0, 1), request(1, 2, b"w1", b"x" * 100_000))]
        assert set(passed) == {(way, *of) for way in Way for of in ((PRODUCE, "w0"), (FETCH, "w1"))}
        writer.close()


async def test_a_hook_keeps_a_request_from_the_server_and_a_reply_from_the_client():
    async with world() as (proxy, asked, connected):

        async def hook(passing):
            number = passing.request.correlation
            return (passing.way, number) not in {(Way.TO_BROKER, 1), (Way.FROM_BROKER, 2)}

        proxy.hook = hook
        reader, writer = await connected()
        writer.write(request(PRODUCE, 1) + request(PRODUCE, 2) + request(PRODUCE, 3))
        assert await replied(reader) == 3
        assert asked == [request(PRODUCE, 2), request(PRODUCE, 3)]
        writer.close()


async def test_cut_connections_end_and_new_ones_are_let_in_unless_they_are_refused():
    async with world() as (proxy, _, connected):
        reader, writer = await connected()
        writer.write(request(FETCH, 1))
        assert await replied(reader) == 1
        proxy.cut()
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await replied(reader)
        reader, writer = await connected()
        writer.write(request(FETCH, 2))
        assert await replied(reader) == 2
        proxy.refuses = True
        reader, writer = await connected()
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await replied(reader)


async def test_what_is_swallowed_comes_nowhere_and_the_connection_stays():
    async with world() as (proxy, asked, connected):
        proxy.swallows = True
        reader, writer = await connected()
        writer.write(request(FETCH, 1))
        await writer.drain()
        other = asyncio.create_task(replied(reader))
        done, _ = await asyncio.wait((other,), timeout=0.2)
        assert not done
        proxy.swallows = False
        writer.write(request(FETCH, 2))
        assert await other == 2
        assert asked == [request(FETCH, 2)]
        writer.close()


async def test_whoever_can_not_reach_the_server_is_told_by_the_end_of_the_connection():
    async with world() as (proxy, _, connected):
        proxy._target = 1
        reader, _ = await connected()
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await replied(reader)
