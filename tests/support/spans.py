"""Spans in memory: a tracer as services have it, and what it recorded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from headrace.process.otlp import SendingTracer
from headrace_schemas.headers import TRACEPARENT
from headrace_schemas.trace_context import TraceContext, read_trace

CALLER = TraceContext(0xA1 << 120, 0xB1, flags=1, state="desk=7")
"""A trace that its sender records."""


class Recorder:
    """``tracer`` is what services get."""

    def __init__(self, ratio: float, *, follows: bool, most_links: int) -> None:
        self._exporter = InMemorySpanExporter()
        self.tracer = SendingTracer(
            self._exporter,
            resource={"service.name": "test"},
            ratio=ratio,
            follows=follows,
            most_links=most_links,
        )

    def spans(self, name: str | None = None) -> list[ReadableSpan]:
        """The spans of this name, or all, in the order in which they began."""
        self.tracer._provider.force_flush()
        found = [one for one in self._exporter.get_finished_spans() if name in {None, one.name}]
        return sorted(found, key=lambda one: one.start_time or 0)

    def names(self) -> list[str]:
        return [one.name for one in self.spans()]


@contextmanager
def recorded(ratio: float = 1.0, *, follows: bool = True, most_links: int = 32) -> Iterator[Recorder]:
    recorder = Recorder(ratio, follows=follows, most_links=most_links)
    try:
        yield recorder
    finally:
        recorder.tracer._provider.shutdown()


def context_of(span: ReadableSpan) -> tuple[int, int]:
    """The ids of its trace and of itself."""
    assert span.context is not None
    return span.context.trace_id, span.context.span_id


def links_of(span: ReadableSpan) -> set[tuple[int, int]]:
    return {(link.context.trace_id, link.context.span_id) for link in span.links}


def ids_of(headers: object) -> tuple[int, int] | None:
    """The ids in the trace context of a record."""
    found = read_trace(tuple(headers))  # type: ignore[arg-type]
    return None if found is None else (found.trace_id, found.span_id)


def traceparent(number: int, *, sampled: bool = True) -> tuple[str, bytes]:
    """The header of a trace of one's own."""
    return TRACEPARENT, TraceContext(number, number, flags=int(sampled)).headers[0][1] or b""
