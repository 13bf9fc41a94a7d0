"""Callers that send too much, too slowly, or too many at once: each is cut off, and the others are answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from tests.support.gateways import GatewaySite, RunningGateway, gateway_site
from tests.support.waiting import until, within

LIMIT_S = 30.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_gateway(embedded_bootstrap: str) -> AsyncIterator[RunningGateway]:
    """In this file ``gateway`` allows little."""
    async with (
        gateway_site(embedded_bootstrap) as site,
        site.gateway(
            max_body_bytes=4096,
            max_header_bytes=2048,
            head_timeout=1.0,
            body_timeout=1.0,
            keep_alive=1.0,
            max_connections=8,
        ) as running,
    ):
        yield running


async def raw(gateway: RunningGateway, *parts: bytes) -> bytes:
    """Send ``parts`` and read until the gateway closes the connection."""
    url = httpx.URL(gateway.address)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
        async with within(LIMIT_S, "the end of a connection"):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


HEAD = b"POST /v1/classify HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"


async def test_a_body_that_is_too_large_is_refused_by_its_length_and_by_its_bytes(gateway: RunningGateway) -> None:
    for reply in (
        await gateway.http.post("/v1/classify", content=b" " * 5000),
        await gateway.http.post("/v1/classify", content=_parts()),
    ):
        assert (reply.status_code, reply.json()["limit"], reply.json()["field"]) == (413, 4096, "body")
    assert gateway.gateway.bodies.held == 0
    assert (await gateway.classify("a")).status_code == 200


async def _parts() -> AsyncIterator[bytes]:
    for _ in range(10):
        yield b" " * 1000


async def test_heads_that_are_too_large_or_never_end_are_cut_off(gateway: RunningGateway) -> None:
    large = await raw(gateway, HEAD, b"x-pad: " + b"p" * 5000)
    assert large.startswith((b"HTTP/1.1 431", b"HTTP/1.1 400")), large
    slow = await raw(gateway, HEAD)
    assert slow.startswith(b"HTTP/1.1 408"), slow
    silent = await raw(gateway)
    assert silent.startswith(b"HTTP/1.1 408"), silent
    assert (await gateway.classify("a")).status_code == 200


async def test_a_body_that_does_not_come_is_given_up(gateway: RunningGateway) -> None:
    reply = await raw(gateway, HEAD, b'content-length: 100\r\n\r\n{"text":')
    assert reply.startswith(b"HTTP/1.1 408"), reply
    assert b"slow-body" in reply


async def test_a_second_call_on_a_connection_is_timed_too(gateway: RunningGateway) -> None:
    whole = HEAD + b"content-length: 3\r\n\r\n" + b'"a"'
    reply = await raw(gateway, whole, b"POST /v1/cl")
    assert reply.count(b"HTTP/1.1") == 2 or reply.startswith(b"HTTP/1.1 200"), reply


async def test_more_connections_than_are_allowed_are_told_to_come_again(gateway: RunningGateway) -> None:
    url = httpx.URL(gateway.address)
    opened = [await asyncio.open_connection(url.host, url.port) for _ in range(8)]
    try:
        await until(lambda: len(gateway.gateway._server.server_state.connections) >= 8)
        refused = await raw(gateway, HEAD)
        assert refused.startswith(b"HTTP/1.1 503"), refused
        assert b"retry-after-ms" in refused
    finally:
        for _, writer in opened:
            writer.close()


async def test_more_bodies_than_may_be_held_are_told_to_come_again(site: GatewaySite) -> None:
    async with site.gateway(max_held_bytes=2048) as gateway:
        reply = await gateway.http.post("/v1/classify", content=b" " * 3000)
        assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")
        assert gateway.gateway.bodies.held == 0


async def test_rubbish_is_no_call_and_no_text_is_logged(
    gateway: RunningGateway, caplog: pytest.LogCaptureFixture
) -> None:
    animal = "Zebrafinkenschnabel"
    assert (await raw(gateway, b"\x00\x01 rubbish\r\n\r\n")).startswith(b"HTTP/1.1 400")
    caplog.set_level("DEBUG")
    await gateway.classify(animal)
    await gateway.classify({"text": animal, "wrong": animal})
    await gateway.http.post("/v1/classify", content=f"{{{animal}".encode())
    assert animal not in "".join(record.getMessage() for record in caplog.records if record.name.startswith("headrace"))
