"""Spans: what a process did, from when to when, in which trace. Services get a :class:`Tracer` passed in.

Without the section `[tracing]` of the settings that is :data:`NO_TRACER`, and this module is all of tracing that is
imported. Spans have no texts: names, counts, versions and types of errors alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from enum import StrEnum
from typing import Final, Protocol, Self

from headrace_schemas.headers import Headers
from headrace_schemas.trace_context import TraceContext, read_trace

Attributes = Mapping[str, str | int | float | bool]


class Kind(StrEnum):
    """What a span is of, as OpenTelemetry has it."""

    CLIENT = "client"
    SERVER = "server"
    PRODUCER = "producer"
    CONSUMER = "consumer"


class Span(Protocol):
    """A span that is under way."""

    @property
    def headers(self) -> Headers:
        """The trace context by which records belong to this span; () unless it is recorded."""

    @property
    def recorded(self) -> bool:
        """Whether it is recorded: of any other, attributes need not be computed."""

    def set(self, attributes: Attributes) -> None: ...
    def rename(self, name: str) -> None: ...
    def fail(self, error_type: str) -> None:
        """What it is of failed. ``error_type`` is one of few: a type of error or a code, never a message."""


class Tracer(Protocol):
    """Makes spans."""

    @property
    def on(self) -> bool:
        """Whether there is anything to do at all."""

    @property
    def most_links(self) -> int:
        """How many other traces a span may link to."""

    def chooses(self, links: Sequence[TraceContext]) -> bool:
        """Whether to record a trace that begins with ``links``, decided before there is anything to describe it by."""

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
        """A span of the block, in which it is the current one.

        It belongs to ``parent``, else to the span that is current, else it begins a trace. It began ``ago_s`` seconds
        before the block. An error that leaves the block fails it. One that was ``chosen`` is recorded.
        """

    @property
    def current(self) -> Headers:
        """The headers of the current span, see :attr:`Span.headers`."""


class NoSpan:
    """The span of nobody, which is its own context."""

    headers: Headers = ()
    recorded = False

    def set(self, attributes: Attributes) -> None:
        """Do nothing."""

    def rename(self, name: str) -> None:
        """Do nothing."""

    def fail(self, error_type: str) -> None:
        """Do nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing."""


NO_SPAN: Final = NoSpan()


class NoTracer:
    """Makes no spans."""

    on = False
    most_links = 0
    current: Headers = ()

    def chooses(self, links: Sequence[TraceContext]) -> bool:  # noqa: ARG002 - as Tracer has it
        """Never."""
        return False

    def span(
        self,
        name: str,  # noqa: ARG002 - as Tracer has it
        kind: Kind,  # noqa: ARG002
        attributes: Attributes,  # noqa: ARG002
        *,
        parent: TraceContext | Span | None = None,  # noqa: ARG002
        links: Sequence[TraceContext] = (),  # noqa: ARG002
        ago_s: float = 0.0,  # noqa: ARG002
        chosen: bool = False,  # noqa: ARG002
    ) -> AbstractContextManager[Span]:
        """No span."""
        return NO_SPAN


NO_TRACER: Final = NoTracer()

Exemplar = dict[str, str] | None
"""The trace of which a value is, as OpenMetrics has it; None of a value whose trace nobody records."""


def exemplar(headers: Headers) -> Exemplar:
    """The trace of a span with these headers, by which a value of a metric leads to it."""
    found = read_trace(headers)
    return None if found is None else {"trace_id": f"{found.trace_id:032x}"}
