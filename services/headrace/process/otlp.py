"""OTLP: a tracer whose spans go to a collector, which fraction of traces it records, and their ids in the log.

The variables of OpenTelemetry's SDK (OTEL_RESOURCE_ATTRIBUTES, OTEL_BSP_SCHEDULE_DELAY and so on) hold for what has no
setting; the SDK reads them when a tracer is opened.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.context import Context, get_value
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult, TraceIdRatioBased
from opentelemetry.util.types import Attributes

from headrace.process.logs import event
from headrace.process.open_telemetry import CHOSEN, OpenTelemetryTracer
from headrace_schemas.trace_context import TraceContext

SCHEMA: Final = "https://opentelemetry.io/schemas/1.44.0"
"""The semantic conventions that names of spans and attributes follow."""
LONGEST_ATTRIBUTE: Final = 512
EXPORT_S: Final = 10.0
"""How long a collector may take for a batch of spans, tries again included."""
FLUSH_S: Final = 3.0
"""How long the end of a process waits for spans that are not sent yet."""


class FollowingSampler(Sampler):
    """Records the fraction ``ratio`` of the traces that begin here.

    If it ``follows``, it also records what belongs or links to a trace that its sender records, and nothing that
    belongs to a trace that its sender does not record.
    """

    def __init__(self, ratio: float, *, follows: bool) -> None:
        self._ratio = TraceIdRatioBased(ratio)
        self._follows = follows

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: trace.SpanKind | None = None,  # noqa: ARG002 - as Sampler has it
        attributes: Attributes = None,
        links: Sequence[trace.Link] | None = None,
        trace_state: trace.TraceState | None = None,  # noqa: ARG002
    ) -> SamplingResult:
        """As OpenTelemetry's samplers."""
        parent = trace.get_current_span(parent_context).get_span_context()
        if parent.is_valid and (self._follows or not parent.is_remote):
            recorded = bool(parent.trace_flags.sampled)
        elif get_value(CHOSEN, parent_context) or (self._follows and _any_sampled(links)):
            recorded = True
        else:
            recorded = self._ratio.should_sample(None, trace_id, name).decision is not Decision.DROP
        decision = Decision.RECORD_AND_SAMPLE if recorded else Decision.DROP
        return SamplingResult(decision, attributes, parent.trace_state)

    def get_description(self) -> str:
        """As OpenTelemetry's samplers."""
        return f"headrace {self._ratio.get_description()}"


def _any_sampled(links: Sequence[trace.Link] | None) -> bool:
    return any(link.context.trace_flags.sampled for link in links or ())


class SendingTracer(OpenTelemetryTracer):
    """Sends its spans by ``exporter``, from a thread of its own and a bounded queue: a collector that is away costs
    spans and no time.
    """

    def __init__(
        self, exporter: SpanExporter, *, resource: Mapping[str, str], ratio: float, follows: bool, most_links: int
    ) -> None:
        self._provider = TracerProvider(
            sampler=FollowingSampler(ratio, follows=follows),
            resource=Resource.create(dict(resource)),
            span_limits=SpanLimits(max_span_attribute_length=LONGEST_ATTRIBUTE, max_links=max(1, most_links)),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._ratio, self._follows = ratio, follows
        self._random = random.random  # which batch is recorded is no secret
        super().__init__(self._provider.get_tracer("headrace", version("headrace"), schema_url=SCHEMA), most_links)

    def chooses(self, links: Sequence[TraceContext]) -> bool:
        return (self._follows and any(link.sampled for link in links)) or self._random() < self._ratio

    async def close(self) -> None:
        """Send what is not sent yet, for at most FLUSH_S seconds."""
        closed = asyncio.Event()
        loop = asyncio.get_running_loop()

        def close() -> None:
            self._provider.shutdown()
            # The loop may have ended meanwhile.
            if not loop.is_closed():
                loop.call_soon_threadsafe(closed.set)

        # A daemon: no collector keeps a process from its end.
        threading.Thread(target=close, name="tracing ends", daemon=True).start()
        try:
            async with asyncio.timeout(FLUSH_S):
                await closed.wait()
        except TimeoutError:
            event("tracing.unsent", level="warning", why=f"the collector took no spans within {FLUSH_S:g} s")


def open_tracer(
    *,
    endpoint: str,
    headers: Mapping[str, str],
    ca_file: str | None,
    service: str,
    process: str,
    ratio: float,
    follows: bool,
    most_links: int,
) -> SendingTracer:
    """A tracer that sends to the collector at ``endpoint`` by OTLP over HTTP. Log lines get the ids of their spans.

    ``service`` and ``process`` are what spans are of.
    """
    exporter = OTLPSpanExporter(endpoint, certificate_file=ca_file, headers=dict(headers), timeout=EXPORT_S)
    ids = TraceIds()
    for handler in logging.getLogger().handlers:
        handler.addFilter(ids)
    resource = {"service.name": service, "service.instance.id": process}
    return SendingTracer(exporter, resource=resource, ratio=ratio, follows=follows, most_links=most_links)


class TraceIds(logging.Filter):
    """Adds to a log line that belongs to a recorded span the fields ``trace_id`` and ``span_id``."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record through."""
        span = trace.get_current_span()
        if span.is_recording():
            context = span.get_span_context()
            ids: dict[str, Any] = {
                "trace_id": trace.format_trace_id(context.trace_id),
                "span_id": trace.format_span_id(context.span_id),
            }
            fields = getattr(record, "fields", None)
            record.fields = {**({"message": record.getMessage()} if fields is None else fields), **ids}
        return True
