"""The pipeline: the stages of an answer, in their order.

fetch -> batch -> decode -> infer -> encode -> publish -> commit
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.core.batching import ServiceTime
from headrace.core.clock import Clock
from headrace.core.drift import TENTHS
from headrace.kafka.dead_letters import Keep
from headrace.kafka.interface import Consumer
from headrace.kafka.tracing import BatchSpans
from headrace.process.logs import event
from headrace.process.tracing import Exemplar, exemplar
from headrace.worker.metrics import WorkerMetrics
from headrace.worker.partitions.assignment import Assignment
from headrace.worker.partitions.partition import Backpressure
from headrace.worker.request_values import ValueReader, value_reader
from headrace.worker.settings import WorkerSettings
from headrace.worker.stages.batch import Batch, Batcher, WriteAttempts
from headrace.worker.stages.commit import Committer
from headrace.worker.stages.decode import decode
from headrace.worker.stages.encode import Encoded, Style, encode
from headrace.worker.stages.fetch import Fetcher
from headrace.worker.stages.infer import MICROS, Inferred, ModelBrokenError, explain, infer
from headrace.worker.stages.publish import AnswerProducer, Publisher
from headrace.worker.tracing import answered, received
from headrace.worker.versions import Served, Serving
from headrace_schemas.headers import JSON, MSGPACK
from headrace_schemas.paths import RequestShape, compile_copy

SHORT_S = 0.02
"""A batch that is predicted to take less is computed on the event loop. On a thread beside the loop, both would wait
for Python's lock, up to five milliseconds at a time."""


class Computed(msgspec.Struct, frozen=True, eq=False):
    """A batch's answers, how many texts reached the model, and the seconds that each stage took.

    ``labels`` and ``tenths`` count the answered texts by label's index and by tenth of the score. They are empty for a
    version whose drift is not measured. ``truncated`` counts the texts that the model read only in part.
    """

    encoded: list[Encoded]
    texts: int
    labels: dict[int, int]
    tenths: dict[int, int]
    decode_s: float
    infer_s: float
    encode_s: float
    truncated: int = 0


Offload = Callable[[Callable[[], Computed]], Awaitable[Computed]]
"""Runs a function off the event loop, on one of as many threads as the worker has."""


class Pipeline:
    """Runs the stages: fetch, the batches and commit beside each other.

    Each partition has a bounded queue between fetch and batch (:class:`Backpressure`), and at most two slices between
    batch and the acknowledgement of publish.
    """

    def __init__(
        self,
        *,
        consumer: Consumer,
        producer: AnswerProducer,
        assignment: Assignment,
        committer: Committer,
        serving: Serving,
        write_attempts: WriteAttempts,
        results: str,
        dead_letters: str,
        settings: WorkerSettings,
        shape: RequestShape,
        keep: Keep,
        batch_bytes: int,
        offload: Offload,
        clock: Clock,
        metrics: WorkerMetrics,
        spans: BatchSpans,
    ) -> None:
        self._assignment = assignment
        self._serving = serving
        self._settings = settings
        self._offload = offload
        self._clock = clock
        self._metrics = metrics
        self._spans = spans
        self._service_time = ServiceTime()
        backpressure = Backpressure(consumer, limit=settings.waiting_per_partition)
        self._fetcher = Fetcher(
            consumer,
            assignment,
            backpressure,
            max_records=settings.waiting_per_partition,
            clock=clock,
            metrics=metrics,
        )
        self._batcher = Batcher(
            assignment,
            backpressure,
            service_time=self._service_time,
            write_attempts=write_attempts,
            max_batch=settings.max_batch,
            max_batch_bytes=settings.max_batch_bytes,
            clock=clock,
            metrics=metrics,
        )
        form = JSON if settings.results_format == "json" else MSGPACK
        self._compute = functools.partial(
            compute,
            reader=value_reader(shape),
            style=Style(
                form,
                compile_copy(shape),
                copies_values=bool(shape.copy_fields),
                batch_bytes=batch_bytes,
                keep=keep,
            ),
            ranking=settings.ranking,
            explains=settings.explain,
            monotonic=clock.monotonic,
        )
        self._publisher = Publisher(
            producer, assignment, results=results, dead_letters=dead_letters, clock=clock, metrics=metrics
        )
        self._committer = committer

    async def run(self, stop: asyncio.Event) -> None:
        """Answer until ``stop`` is set, then finish the batches in work."""
        async with asyncio.TaskGroup() as stages:
            fetch = stages.create_task(self._fetcher.run(), name="fetch")
            batches = stages.create_task(self._answer_batches(), name="batch to publish")
            commit = stages.create_task(self._committer.run(self._assignment), name="commit")
            await stop.wait()
            fetch.cancel()
            await self._drain()
            batches.cancel()
            commit.cancel()

    async def _answer_batches(self) -> None:
        """Cut a batch whenever a thread is free, and answer it."""
        threads = asyncio.Semaphore(self._settings.threads)
        async with asyncio.TaskGroup() as batches:
            while True:
                await threads.acquire()
                batch = await self._batcher.next()
                # Nothing is predicted before the first batch is timed.
                if 0 < self._service_time.predict(batch.weight) < SHORT_S:
                    await self._answer(batch, short=True)
                    threads.release()
                else:
                    batches.create_task(self._answer(batch)).add_done_callback(lambda _: threads.release())

    async def _answer(self, batch: Batch, *, short: bool = False) -> None:
        """Decode, infer and encode a batch, on a thread unless it is ``short``, and publish its answers.

        While the model is broken, the batch waits.
        """
        trace = received(self._spans, batch, self._clock.monotonic())
        while True:
            begun = self._clock.monotonic()
            served = self._serving.now
            work = functools.partial(self._compute, batch, served)
            try:
                with trace.process() as span:
                    computed = work() if short else await self._offload(work)
                    answered(span, served.model.version, computed.encoded)
                    leads_to = exemplar(span.headers)
                    self._observe(batch, served, computed, begun, leads_to)
                    # Its tasks belong to the span: what they send is in the same trace.
                    self._publisher.publish(computed.encoded, leads_to)
            except ModelBrokenError as error:
                await self._wait_for_model(served, error)
                if not batch.wanted:
                    batch.give_up()
                    return
            else:
                return

    def _observe(self, batch: Batch, served: Served, computed: Computed, begun: float, trace: Exemplar) -> None:
        self._metrics.breaker(is_open=self._serving.broken)
        if served.drift is not None:
            served.drift.add(computed.labels, computed.tenths, begun)
        took = self._clock.monotonic() - begun
        self._service_time.observe(batch.weight, took)
        self._metrics.spent("model", batch.size * took)
        self._metrics.computed(
            computed.texts,
            computed.decode_s,
            computed.infer_s,
            computed.encode_s,
            truncated=computed.truncated,
            trace=trace,
        )

    async def _wait_for_model(self, served: Served, error: ModelBrokenError) -> None:
        """Wait ``breaker_retry`` seconds, or until another version answers. Nothing is dead-lettered meanwhile."""
        if served.breaker.open and not served.replaced.is_set():
            self._metrics.breaker(is_open=True)
            event("breaker.open", level="error", why=str(error))
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.breaker_retry):
                await served.replaced.wait()

    async def _drain(self) -> None:
        """Finish what is in work. The next owner answers the requests that only wait."""
        event("worker.draining")
        for partition in self._assignment.partitions.values():
            partition.queue.clear()
        pending = [p.in_flight.last for p in self._assignment.partitions.values() if p.in_flight.last is not None]
        if pending:
            await asyncio.wait(pending, timeout=self._settings.drain_timeout)


def compute(
    batch: Batch,
    served: Served,
    *,
    reader: ValueReader,
    style: Style,
    ranking: int,
    explains: bool,
    monotonic: Callable[[], float],
) -> Computed:
    """Answer a batch by one version: decode, infer, encode. It does no I/O, so it runs on any thread.

    Raises ModelBrokenError when the model fails on its canaries too.
    """
    model = served.model
    begun = monotonic()
    decoded = decode(batch.slices, batch.ready_ms, reader)
    decoded_at = monotonic()
    inferred = infer(model, decoded.texts, served.breaker, ranking=ranking)
    if decoded.explained and explains:
        inferred = explain(model, decoded.texts, decoded.explained, inferred)
    inferred_at = monotonic()
    encoded = encode(batch.slices, decoded, inferred, model=model, style=style)
    labels, tenths = _counts(inferred) if served.drift is not None else ({}, {})
    return Computed(
        encoded,
        len(decoded.texts),
        labels,
        tenths,
        decoded_at - begun,
        inferred_at - decoded_at,
        monotonic() - inferred_at,
        model.truncated(decoded.texts),
    )


def _counts(inferred: Inferred) -> tuple[dict[int, int], dict[int, int]]:
    """The answered texts by label's index and by tenth of their score; 1.0 is in the last tenth."""
    answered = inferred.labels >= 0
    tenths = np.minimum(inferred.micros[answered] * TENTHS // MICROS, TENTHS - 1)
    return _counted(inferred.labels[answered]), _counted(tenths)


def _counted(values: NDArray[np.integer[Any]]) -> dict[int, int]:
    return {value: count for value, count in enumerate(np.bincount(values).tolist()) if count}
