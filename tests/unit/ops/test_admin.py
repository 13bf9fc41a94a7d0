import asyncio
import socket

import pytest
from prometheus_client import CollectorRegistry, Counter

from headrace.admin import LONGEST_HEAD, AdminPortError, Check, admin_server

HOST = "127.0.0.1"


def well() -> None:
    return None


async def ask(port: int, head: bytes) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(head)
    answer = await reader.read()
    writer.close()
    top, _, body = answer.partition(b"\r\n\r\n")
    return int(top.split()[1]), body


async def get(path: str, *, health: Check = well, ready: Check = well, method: str = "GET") -> tuple[int, bytes]:
    registry = CollectorRegistry()
    Counter("turns", "Turns.", registry=registry).inc(3)
    async with admin_server(HOST, 0, health=health, ready=ready, registry=registry) as port:
        return await ask(port, f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())


async def test_health_and_readiness_are_told_apart() -> None:
    assert await get("/healthz", ready=lambda: "the breaker is open") == (200, b"ok\n")
    assert await get("/readyz", ready=lambda: "the breaker is open") == (503, b"the breaker is open\n")
    assert await get("/healthz", health=lambda: "stalled") == (503, b"stalled\n")
    assert await get("/readyz?verbose") == (200, b"ok\n")


async def test_metrics_are_those_of_the_registry_given() -> None:
    status, body = await get("/metrics")
    assert status == 200
    assert b"turns_total 3.0" in body


async def test_a_head_request_gets_no_body() -> None:
    assert await get("/healthz", method="HEAD") == (200, b"")


async def test_another_path_or_method_is_refused_with_what_there_is() -> None:
    status, body = await get("/")
    assert (status, b"/healthz" in body) == (404, True)
    assert (await get("/healthz", method="POST"))[0] == 405


async def test_a_head_without_end_is_refused() -> None:
    registry = CollectorRegistry()
    async with admin_server(HOST, 0, health=well, ready=well, registry=registry) as port:
        status, _ = await ask(port, b"GET / HTTP/1.1\r\nX: " + b"x" * (4 * LONGEST_HEAD))
        assert status == 431


async def test_a_connection_that_says_nothing_does_not_hold_up_the_end() -> None:
    async with admin_server(HOST, 0, health=well, ready=well, registry=CollectorRegistry()) as port:
        reader, writer = await asyncio.open_connection(HOST, port)
        assert (await ask(port, b"GET /healthz HTTP/1.1\r\n\r\n"))[0] == 200
    assert await reader.read() == b""
    writer.close()


async def test_a_taken_port_is_named_with_what_to_do() -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(AdminPortError, match=rf"{port} can't be opened .* by admin\.port"):
            async with admin_server(HOST, port, health=well, ready=well, registry=CollectorRegistry()):
                pass
