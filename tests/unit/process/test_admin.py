import asyncio
import logging
import socket

import pytest
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from headrace.process import admin
from headrace.process.admin import LONGEST_HEAD, MOST_CONNECTIONS, Check, admin_server
from headrace.process.ports import PortError
from headrace.worker.metrics import WorkerMetrics

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


@pytest.mark.parametrize(
    ("accepts", "exemplars"),
    [
        # What Prometheus 2.42 and 3.5 send.
        ("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1", 1),
        ("text/html, application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6", 1),
        ("text/plain;version=0.0.4", 0),
        ("application/openmetrics-text;version=\xff;escaping=" + "x" * 1000, 1),
    ],
)
async def test_a_value_names_its_trace_where_openmetrics_is_accepted(accepts: str, exemplars: int) -> None:
    registry = CollectorRegistry()
    WorkerMetrics(registry).stage("infer", 0.02, {"trace_id": "ab" * 16})
    async with admin_server(HOST, 0, health=well, ready=well, registry=registry) as port:
        head = f"GET /metrics HTTP/1.1\r\nHost: x\r\nACCEPT: {accepts}\r\nX: y\r\n\r\n"
        status, body = await ask(port, head.encode("latin-1"))
    assert status == 200
    assert body.count(b'# {trace_id="' + b"ab" * 16 + b'"} 0.02') == exemplars
    if exemplars:
        # Every family, with and without traces, is one that a strict reader takes.
        families = {family.name for family in text_string_to_metric_families(body.decode())}
        assert "headrace_stage_seconds" in families


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


PROBE = b"GET /healthz HTTP/1.1\r\n\r\n"


def connect(port: int, source: str = HOST) -> socket.socket:
    """A connection that is made while the event loop stands still, as during a batch."""
    opened = socket.create_connection((HOST, port), timeout=60, source_address=(source, 0))
    opened.setblocking(False)
    return opened


async def all_of(opened: socket.socket) -> bytes:
    """What comes until the other end closes; nothing when it cuts."""
    found = b""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(60):
            while piece := await loop.sock_recv(opened, 65536):
                found += piece
    except ConnectionResetError:
        pass
    return found


async def test_silent_connections_do_not_cut_a_probe_that_came_before_them() -> None:
    async with admin_server(HOST, 0, health=well, ready=well, registry=CollectorRegistry()) as port:
        probe = connect(port)
        probe.send(PROBE)
        silent = [connect(port) for _ in range(MOST_CONNECTIONS)]
        assert (await all_of(probe)).startswith(b"HTTP/1.1 200 ")
        # Nor one that comes behind them.
        assert (await ask(port, PROBE))[0] == 200
        for one in (probe, *silent):
            one.close()


async def test_one_address_can_not_cut_the_probe_of_another_before_it_is_sent() -> None:
    async with admin_server(HOST, 0, health=well, ready=well, registry=CollectorRegistry()) as port:
        probe = connect(port)
        assert (await ask(port, PROBE))[0] == 200
        try:
            crowd = [connect(port, "127.0.0.2") for _ in range(MOST_CONNECTIONS)]
        except OSError:
            probe.close()
            pytest.skip("this machine has one loopback address")
        crowd += [connect(port, "127.0.0.2")]
        # The first of the crowd is cut: there are too many by now, and it holds the most.
        assert await all_of(crowd[0]) == b""
        probe.send(PROBE)
        assert (await all_of(probe)).startswith(b"HTTP/1.1 200 ")
        for one in (probe, *crowd):
            one.close()


async def test_connections_that_say_nothing_are_never_many() -> None:
    async with admin_server(HOST, 0, health=well, ready=well, registry=CollectorRegistry()) as port:
        crowd = []
        for _ in range(5):
            crowd += [connect(port) for _ in range(MOST_CONNECTIONS)]
            assert (await ask(port, PROBE))[0] == 200
        ends = [asyncio.ensure_future(all_of(one)) for one in crowd]
        async with asyncio.timeout(60):
            while sum(not end.done() for end in ends) > MOST_CONNECTIONS:  # noqa: ASYNC110 - sockets tell no event
                await asyncio.sleep(0.01)
    await asyncio.gather(*ends)
    for one in crowd:
        one.close()


async def test_a_taken_port_is_named_with_what_to_do() -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortError, match=rf"{port}: another process listens there\. Set admin\.port") as raised:
            async with admin_server(HOST, port, health=well, ready=well, registry=CollectorRegistry()):
                pass
        assert raised.value.exit_code == 2


async def test_beside_a_taken_port_the_next_free_one_is_taken_and_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="headrace")
    async with (
        admin_server(HOST, 0, health=well, ready=well, registry=CollectorRegistry()) as first,
        admin_server(HOST, first, neighbours=50, health=well, ready=well, registry=CollectorRegistry()) as second,
    ):
        assert first < second <= first + 50
        assert (await ask(second, PROBE))[0] == 200
    [_, said] = [record.fields for record in caplog.records if getattr(record, "event", "") == "admin.listening"]
    assert (said["port"], said["instead_of"]) == (second, first)


@pytest.mark.parametrize(
    ("host", "port", "why"),
    [("192.0.2.1", 0, "this machine has no such address"), ("nowhere.invalid", 0, r"[Nn]ame|known")],
)
async def test_a_host_that_is_not_this_machine_is_said_and_no_neighbour_is_tried(
    host: str, port: int, why: str
) -> None:
    with pytest.raises(PortError, match=why):
        async with admin_server(host, port, neighbours=5, health=well, ready=well, registry=CollectorRegistry()):
            pass


async def test_past_the_last_port_there_is_none() -> None:
    with pytest.raises(PortError, match="no port 65536"):
        async with admin_server(HOST, 65536, health=well, ready=well, registry=CollectorRegistry()):
            pass


async def test_a_request_that_came_while_the_loop_was_held_past_the_limit_is_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admin, "HEAD_S", 600.0)
    loop = asyncio.get_running_loop()
    real_s = loop.time
    async with admin_server(HOST, 0, health=well, ready=well, registry=CollectorRegistry()) as port:
        silent, probe = connect(port), connect(port)
        assert (await ask(port, PROBE))[0] == 200  # so those before it wait for their heads by now
        probe.send(PROBE)
        monkeypatch.setattr(loop, "time", lambda: real_s() + 1000.0)
        assert (await all_of(probe)).startswith(b"HTTP/1.1 200 ")
        assert await all_of(silent) == b""
        silent.close()
        probe.close()
