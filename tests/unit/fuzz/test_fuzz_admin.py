"""The admin port against bytes that are no HTTP, and against clients that are slow, silent, many or half gone."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hypothesis import example, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from headrace.process import admin
from headrace.process.admin import LONGEST_HEAD, MOST_CONNECTIONS, admin_server
from tests.support.waiting import until

HOST = "127.0.0.1"
PROBE = b"GET /healthz HTTP/1.1\r\n\r\n"
ANSWER = re.compile(rb"HTTP/1\.1 (200|404|405|431|503) [\w ]+\r\n")
requests = st.one_of(
    st.binary(max_size=200),
    st.builds(
        b" ".join, st.lists(st.sampled_from([b"GET", b"HEAD", b"/metrics", b"/../x", b"HTTP/9", b"\0", b"\xff?"]))
    ),
)


@asynccontextmanager
async def served() -> AsyncIterator[int]:
    async with admin_server(HOST, 0, health=lambda: None, ready=lambda: "no", registry=CollectorRegistry()) as port:
        yield port


async def ask(port: int, sent: bytes) -> bytes:
    """What comes back to ``sent``, after which this side says that no more comes."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        writer.write(sent)
        writer.write_eof()
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


def send_and_reset(port: int, sent: bytes) -> None:
    """Close the connection by a reset, not in order."""
    with socket.create_connection((HOST, port), timeout=10) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.sendall(sent)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(requests, st.sampled_from([b"", b"\r\n", b"\r\n\r\n", b"\r\n\r\n" * 3])), min_size=1, max_size=6)
)
@example([(b"GET " + b"/" * (LONGEST_HEAD - 30), b" HTTP/1.1\r\n\r\n")])
@example([(b"GET " + b"/" * 1_000_000, b" HTTP/1.1\r\n\r\n")])
@example([(b"x: y\r\n" * 100_000, b"\r\n\r\n")])
def test_any_bytes_are_answered_or_cut_and_the_next_probe_is_answered(sent):
    async def main():
        async with served() as port:
            for request, end in sent:
                answer = await ask(port, request + end)
                assert not answer or ANSWER.match(answer)
                assert (await ask(port, PROBE)).endswith(b"\r\n\r\nok\n")

    asyncio.run(main())


async def test_those_who_open_connections_and_say_nothing_keep_no_probe_out():
    async with served() as port:
        silent = [await asyncio.open_connection(HOST, port) for _ in range(3 * MOST_CONNECTIONS)]
        assert b"200 OK" in await ask(port, PROBE)
        # The oldest were cut, the youngest may still speak.
        assert await silent[0][0].read() == b""
        reader, writer = silent[-1]
        writer.write(PROBE)
        assert b"200 OK" in await reader.read()
        for _, writer in silent:
            writer.close()


async def test_a_client_that_sends_a_byte_at_a_time_is_cut_after_a_while(monkeypatch):
    monkeypatch.setattr(admin, "TIMEOUT_S", 0.3)
    async with served() as port:
        reader, writer = await asyncio.open_connection(HOST, port)

        def dripped() -> bool:
            writer.write(b"x")
            return reader.at_eof() or reader.exception() is not None

        await until(dripped, 20)
        writer.close()
        assert b"200 OK" in await ask(port, PROBE)


async def test_clients_that_are_gone_before_their_answer_leave_nothing_behind():
    async with served() as port:
        before = len(asyncio.all_tasks())
        for request in (b"", PROBE[:9], PROBE, b"GET /metrics HTTP/1.1\r\n\r\n") * 50:
            await asyncio.to_thread(send_and_reset, port, request)
        assert b"200 OK" in await ask(port, PROBE)
        await until(lambda: len(asyncio.all_tasks()) <= before, 20)
