"""Tracing in a process: none unless it is set, a collector that can't hold anything up, and ids in the log."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import msgspec
import pytest

from headrace.commands.common import tracing
from headrace.config import Settings, SettingsError, TracingSettings, load_settings
from headrace.core.fields import Secret
from headrace.process import otlp
from headrace.process.logs import configure, event
from headrace.process.tracing import NO_TRACER, Kind
from tests.support.spans import CALLER, context_of, recorded
from tests.support.waiting import until


class Collector(BaseHTTPRequestHandler):
    """Takes what is posted, or lets its sender wait."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.taken.append((self.path, dict(self.headers), body))  # type: ignore[attr-defined]
        self.server.goes_on.wait(60)  # type: ignore[attr-defined]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def collector() -> Iterator[SimpleNamespace]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        server.daemon_threads = True
        server.taken, server.goes_on = [], threading.Event()  # type: ignore[attr-defined]
        server.goes_on.set()  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        yield SimpleNamespace(address=address, taken=server.taken, goes_on=server.goes_on)  # type: ignore[attr-defined]
        server.goes_on.set()  # type: ignore[attr-defined]
        server.shutdown()


def settings(**values: object) -> Settings:
    return msgspec.structs.replace(Settings(), tracing=TracingSettings(**values))  # type: ignore[arg-type]


def test_a_program_without_tracing_imports_nothing_of_opentelemetry() -> None:
    code = """
import asyncio, sys
sys.modules["opentelemetry"] = None
import headrace.client, headrace.gateway.app, headrace.labeller.labeller, headrace.worker.worker
from headrace.commands import common, gateway, labeller, worker
from headrace.config import Settings
from headrace.kafka.aio import AioKafkaCluster
async def main():
    async with common.tracing(Settings(), "worker", "p") as tracer:
        print(tracer.on, sorted(name for name in sys.modules if name.startswith("opentelemetry.")))
    headrace.client.connect("127.0.0.1:1")
asyncio.run(main())
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ran.stdout, ran.stderr) == ("False []\n", "")


async def test_spans_go_to_the_collector_with_its_headers_and_the_service(collector: SimpleNamespace) -> None:
    own = settings(endpoint=collector.address, headers=Secret("x-team=a b, x-key=c"), ratio=1.0)
    async with tracing(own, "worker", "host-1") as tracer:
        with tracer.span("process classify.requests", Kind.CONSUMER, {"messaging.system": "kafka"}):
            pass
    ((path, headers, body),) = collector.taken
    sent = {name.lower(): value for name, value in headers.items()}
    assert (path, sent["x-team"], sent["x-key"]) == ("/v1/traces", "a b", "c")
    for part in (b"headrace-worker", b"host-1", b"process classify.requests", b"schemas/1.44.0"):
        assert part in body


async def test_a_collector_that_does_not_answer_holds_up_neither_work_nor_end(
    collector: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(otlp, "FLUSH_S", 0.05)
    collector.goes_on.clear()
    async with tracing(settings(endpoint=collector.address, ratio=1.0), "worker", "p") as tracer:
        for _ in range(600):
            with tracer.span("process", Kind.CONSUMER, {}):
                pass
    collector.goes_on.set()
    # A batch has 512 spans; the thread sends the rest too where the process goes on.
    await until(lambda: len(collector.taken) == 2)
    assert [one.getMessage() for one in caplog.records if "tracing.unsent" in one.getMessage()]


async def test_off_nothing_is_made() -> None:
    async with tracing(Settings(), "worker", "p") as tracer:
        assert tracer is NO_TRACER
        with tracer.span("process", Kind.CONSUMER, {}) as span:
            span.set({"a": 1})
            span.fail("error")
            span.rename("other")
        assert (span.recorded, span.headers, tracer.current) == (False, (), ())


def test_a_child_of_a_remote_trace_is_recorded_as_its_sender_does() -> None:
    with recorded(ratio=0.0) as recorder:
        with recorder.tracer.span("followed", Kind.SERVER, {}, parent=CALLER) as span:
            (_, state) = span.headers
        unsampled = msgspec.structs.replace(CALLER, flags=0)
        with recorder.tracer.span("not recorded by its sender", Kind.SERVER, {}, parent=unsampled):
            pass
        (one,) = recorder.spans()
        assert one.parent is not None
        assert (context_of(one)[0], one.parent.span_id) == (CALLER.trace_id, CALLER.span_id)
        assert state == ("tracestate", b"desk=7")
    with recorded(ratio=1.0) as recorder:
        with recorder.tracer.span("not recorded by its sender", Kind.SERVER, {}, parent=unsampled):
            pass
        assert recorder.spans() == []


def test_the_ratio_is_kept_about() -> None:
    with recorded(ratio=0.25) as recorder:
        for _ in range(1000):
            with recorder.tracer.span("process", Kind.CONSUMER, {}):
                pass
        # By chance it leaves these bounds once in a billion runs.
        assert 165 < len(recorder.spans()) < 340


async def test_log_lines_have_the_ids_of_a_recorded_span(collector: SimpleNamespace) -> None:
    stream = io.StringIO()
    before = logging.getLogger().handlers[:]
    configure(stream, form="json")
    try:
        async with tracing(settings(endpoint=collector.address, ratio=0.0), "worker", "p") as tracer:
            event("request.failed", level="warning", code="bad-bytes")
            with tracer.span("not recorded", Kind.CONSUMER, {}):
                event("request.failed", level="warning", code="bad-bytes")
            with tracer.span("recorded", Kind.SERVER, {}, parent=CALLER):
                event("request.failed", level="warning", code="bad-bytes")
                logging.getLogger("another.library").warning("it is %s", "late")
                await asyncio.sleep(0)
    finally:
        logging.getLogger().handlers[:] = before
    without, unrecorded, own, foreign = map(json.loads, stream.getvalue().splitlines())
    assert "trace_id" not in {**without, **unrecorded}
    assert own["trace_id"] == foreign["trace_id"] == f"{CALLER.trace_id:032x}"
    assert len(own["span_id"]) == 16
    assert (own["code"], foreign["message"]) == ("bad-bytes", "it is late")


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("http://localhost:4318", "http://localhost:4318/v1/traces"),
        ("https://otlp.example.com/", "https://otlp.example.com/v1/traces"),
        ("https://example.com/otlp/v1/traces", "https://example.com/otlp/v1/traces"),
        ("http://[::1]:4318", "http://[::1]:4318/v1/traces"),
    ],
)
def test_the_path_of_otlp_is_added_where_there_is_none(given: str, address: str) -> None:
    assert TracingSettings(endpoint=given).address == address


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("endpoint=localhost:4318", "has to be an address such as http://localhost:4318"),
        ("endpoint=file:///etc/passwd", "has to be an address"),
        ("endpoint=http://:4318", "has to be an address"),
        ("endpoint=http://localhost:99999", "has to be an address"),
        ("endpoint=http://localhost:4318?key=1", "has to be an address"),
        ("endpoint=http://ann:hush@localhost", "a password has no place in an address"),
        ("ratio=1.5", "ratio"),
        ("links=129", "links"),
    ],
)
def test_what_can_not_be_a_collector_is_refused(given: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said) as refused:
        load_settings(None, {}, [f"tracing.{given}"], {})
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize("given", ["", "x", "x=", "=y", "x y=1", "x=1,", "x=\u00e9", "x=1\ny: 2"])
def test_headers_that_are_none_are_refused_and_not_shown(given: str) -> None:
    with pytest.raises(ValueError, match="headers: write name=value") as refused:
        TracingSettings(headers=Secret(given))
    assert str(refused.value) == "headers: write name=value, several with commas between"
