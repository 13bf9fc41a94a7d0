"""Spans of messaging, by OpenTelemetry's semantic conventions 1.44: their names, attributes and links.

A span is of a batch. It links to the traces of some of its records (those that are sampled, a bounded number): a batch
holds requests of many traces, so it can be a child of none.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import TypeVar

import msgspec

from headrace.kafka.interface import Appended, Headers, Outgoing, Producer
from headrace.process.tracing import NO_SPAN, Attributes, Kind, Span, Tracer
from headrace_schemas.headers import TRACEPARENT
from headrace_schemas.trace_context import TraceContext, sampled_traces

T = TypeVar("T")


def messaging(
    operation: str, kind: str, topic: str, count: int, *, group: str | None = None, partition: int | None = None
) -> Attributes:
    """The attributes of ``operation`` on ``count`` records of ``topic``; ``kind`` is receive, process or send."""
    return {
        "messaging.system": "kafka",
        "messaging.operation.name": operation,
        "messaging.operation.type": kind,
        "messaging.destination.name": topic,
        "messaging.batch.message_count": count,
        **({} if group is None else {"messaging.consumer.group.name": group}),
        **({} if partition is None else {"messaging.destination.partition.id": str(partition)}),
    }


class BatchTrace:
    """The trace of one batch, which nobody records."""

    def process(self) -> AbstractContextManager[Span]:
        """The span of the work on the batch, or of another try."""
        return NO_SPAN


UNTRACED = BatchTrace()


class RecordedBatch(BatchTrace):
    """A batch whose ``receive`` is recorded, so that its processing is too."""

    def __init__(self, spans: BatchSpans, receive: Span, links: Sequence[TraceContext], attributes: Attributes) -> None:
        self._spans = spans
        self._receive = receive
        self._links = links
        self._attributes = attributes

    def process(self) -> AbstractContextManager[Span]:
        return self._spans.span("process", Kind.CONSUMER, self._attributes, self._links, parent=self._receive)


class BatchSpans:
    """The spans of the batches that ``group`` takes from ``topic``.

    `poll` is of the time for which the records of a batch waited here, `process` of the work on them. Both link to the
    traces of the records.
    """

    def __init__(self, tracer: Tracer, topic: str, group: str) -> None:
        self.on = tracer.on
        self._tracer = tracer
        self._topic = topic
        self._group = group

    def received(
        self, records: Iterable[Headers], count: int, *, waited_s: float, partition: int | None = None
    ) -> BatchTrace:
        """A batch of ``count`` records with these headers, of which the oldest came ``waited_s`` seconds ago.

        ``partition`` is that of all of them, if they are of one.
        """
        links = sampled_traces(records, self._tracer.most_links)
        if not self._tracer.chooses(links):
            return UNTRACED

        def attributes(operation: str, kind: str) -> Attributes:
            return messaging(operation, kind, self._topic, count, group=self._group, partition=partition)

        poll = self.span("poll", Kind.CLIENT, attributes("poll", "receive"), links, ago_s=waited_s, chosen=True)
        with poll as receive:
            pass  # it is over: the batch is here
        return RecordedBatch(self, receive, links, attributes("process", "process"))

    def process(self, records: Iterable[Headers], count: int) -> AbstractContextManager[Span]:
        """The span of the work on ``count`` records with these headers, which begins a trace."""
        if not self.on:
            return NO_SPAN
        links = sampled_traces(records, self._tracer.most_links)
        if not self._tracer.chooses(links):
            return NO_SPAN
        attributes = messaging("process", "process", self._topic, count, group=self._group)
        return self.span("process", Kind.CONSUMER, attributes, links, chosen=True)

    def span(
        self,
        operation: str,
        kind: Kind,
        attributes: Attributes,
        links: Sequence[TraceContext],
        *,
        parent: Span | None = None,
        ago_s: float = 0.0,
        chosen: bool = False,
    ) -> AbstractContextManager[Span]:
        """The span of ``operation`` on a batch of the topic."""
        name = f"{operation} {self._topic}"
        return self._tracer.span(name, kind, attributes, parent=parent, links=links, ago_s=ago_s, chosen=chosen)


def traced(
    new_producer: Callable[[], Producer],
    tracer: Tracer,
    topics: Collection[str],
    *,
    injects: bool = False,
    within: bool = False,
) -> Callable[[], Producer]:
    """``new_producer``, with a span of each batch that its producers send to ``topics``; itself where tracing is off.

    It ``injects`` the span's context into records that have none. Spans that only make sense ``within`` another are
    left out where that one is not recorded.
    """
    if not tracer.on:
        return new_producer
    return lambda: TracedProducer(new_producer(), tracer, frozenset(topics), injects=injects, within=within)


class TracedProducer:
    """A producer with a span of each batch that it sends to ``topics``."""

    def __init__(
        self, producer: Producer, tracer: Tracer, topics: Collection[str], *, injects: bool, within: bool
    ) -> None:
        self._producer = producer
        self._tracer = tracer
        self._topics = topics
        self._injects = injects
        self._within = within

    @property
    def dead(self) -> bool:
        return self._producer.dead

    async def start(self) -> None:
        await self._producer.start()

    async def stop(self) -> None:
        await self._producer.stop()

    async def send(self, topic: str, record: Outgoing, *, partition: int | None = None) -> Appended:
        async def hand_over(records: Sequence[Outgoing]) -> Appended:
            return await self._producer.send(topic, records[0], partition=partition)

        return await self._sent(topic, (record,), partition, hand_over)

    async def send_many(
        self, topic: str, records: Sequence[Outgoing], *, partition: int | None = None
    ) -> list[Appended]:
        async def hand_over(records: Sequence[Outgoing]) -> list[Appended]:
            return await self._producer.send_many(topic, records, partition=partition)

        return await self._sent(topic, records, partition, hand_over)

    async def send_batch(self, topic: str, partition: int, records: Sequence[Outgoing]) -> Appended:
        async def hand_over(records: Sequence[Outgoing]) -> Appended:
            return await self._producer.send_batch(topic, partition, records)

        return await self._sent(topic, records, partition, hand_over)

    async def send_in_order(self, topic: str, partition: int, records: Sequence[Outgoing]) -> list[int]:
        async def hand_over(records: Sequence[Outgoing]) -> list[int]:
            return await self._producer.send_in_order(topic, partition, records)

        return await self._sent(topic, records, partition, hand_over)

    async def partitions_of(self, topic: str) -> frozenset[int]:
        return await self._producer.partitions_of(topic)

    async def _sent(
        self,
        topic: str,
        records: Sequence[Outgoing],
        partition: int | None,
        hand_over: Callable[[Sequence[Outgoing]], Awaitable[T]],
    ) -> T:
        if topic not in self._topics or (self._within and not self._tracer.current):
            return await hand_over(records)
        # What is sent within the work on a batch is linked there.
        links = [] if self._within else sampled_traces((one.headers for one in records), self._tracer.most_links)
        attributes = messaging("send", "send", topic, len(records), partition=partition)
        kind = Kind.PRODUCER if self._injects else Kind.CLIENT
        with self._tracer.span(f"send {topic}", kind, attributes, links=links) as span:
            if self._injects and (headers := span.headers):
                records = [_with_trace(record, headers) for record in records]
            return await hand_over(records)


def _with_trace(record: Outgoing, headers: Headers) -> Outgoing:
    if any(name == TRACEPARENT for name, _ in record.headers):
        return record
    return msgspec.structs.replace(record, headers=(*record.headers, *headers))
