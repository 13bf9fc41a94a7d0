"""Spans by OpenTelemetry's API: the tracer of a user's program, or our own of :mod:`headrace.process.otlp`.

This module and that one alone import opentelemetry, and are imported only where tracing is on.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Final

from opentelemetry import trace
from opentelemetry.context import create_key, set_value

from headrace.process.tracing import Attributes, Kind, Span
from headrace_schemas.headers import Headers
from headrace_schemas.trace_context import TraceContext

CHOSEN: Final = create_key("headrace-chosen")
"""Of a context: that its trace is recorded was decided before."""
_KINDS = {
    Kind.CLIENT: trace.SpanKind.CLIENT,
    Kind.SERVER: trace.SpanKind.SERVER,
    Kind.PRODUCER: trace.SpanKind.PRODUCER,
    Kind.CONSUMER: trace.SpanKind.CONSUMER,
}


class OpenTelemetrySpan:
    """A span of OpenTelemetry's, which is its ``own``."""

    def __init__(self, span: trace.Span) -> None:
        self.own = span

    @property
    def recorded(self) -> bool:
        return self.own.is_recording()

    @property
    def headers(self) -> Headers:
        context = self.own.get_span_context()
        # Nobody finds a trace that is not sampled, and a header of its own costs each answer.
        if not context.is_valid or not context.trace_flags.sampled:
            return ()
        state = context.trace_state.to_header()
        return TraceContext(context.trace_id, context.span_id, int(context.trace_flags), state).headers

    def set(self, attributes: Attributes) -> None:
        self.own.set_attributes(attributes)

    def rename(self, name: str) -> None:
        self.own.update_name(name)

    def fail(self, error_type: str) -> None:
        self.own.set_attribute("error.type", error_type)
        self.own.set_status(trace.StatusCode.ERROR)


class OpenTelemetryTracer:
    """Makes spans by ``tracer``, with links to at most ``most_links`` traces."""

    on = True

    def __init__(self, tracer: trace.Tracer, most_links: int = 32) -> None:
        self._tracer = tracer
        self._most_links = most_links

    @property
    def most_links(self) -> int:
        return self._most_links

    @property
    def current(self) -> Headers:
        return OpenTelemetrySpan(trace.get_current_span()).headers

    def chooses(self, links: Sequence[TraceContext]) -> bool:
        """Leave it to the sampler of a user's tracer, which decides by all that a span has."""
        del links
        return True

    def span(
        self,
        name: str,
        kind: Kind,
        attributes: Attributes,
        *,
        parent: TraceContext | Span | None = None,
        links: Sequence[TraceContext] = (),
        ago_s: float = 0.0,
        chosen: bool = False,
    ) -> AbstractContextManager[Span]:
        context = set_value(CHOSEN, True) if chosen else None
        if isinstance(parent, TraceContext):
            context = trace.set_span_in_context(trace.NonRecordingSpan(_remote(parent)))
        elif isinstance(parent, OpenTelemetrySpan):
            context = trace.set_span_in_context(parent.own)
        span = self._tracer.start_span(
            name,
            context=context,
            kind=_KINDS[kind],
            attributes=attributes,
            links=[trace.Link(_remote(one)) for one in links],
            start_time=time.time_ns() - round(ago_s * 1e9) if ago_s else None,
        )
        return _current(span)


@contextmanager
def _current(span: trace.Span) -> Iterator[Span]:
    ours = OpenTelemetrySpan(span)
    # The message of an error may quote a text, so OpenTelemetry must not record it.
    with trace.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
        try:
            yield ours
        except BaseException as error:
            ours.fail(type(error).__qualname__)
            raise


def _remote(context: TraceContext) -> trace.SpanContext:
    return trace.SpanContext(
        context.trace_id,
        context.span_id,
        is_remote=True,
        trace_flags=trace.TraceFlags(context.flags),
        trace_state=trace.TraceState.from_header([context.state]) if context.state else None,
    )
