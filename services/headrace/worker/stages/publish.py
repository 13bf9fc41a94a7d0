"""Publish: answers to the partition of their requests, in order, one unacknowledged slice a partition.

No slice is handed to the producer after the lease has ended. The lease is checked immediately before, with no await in
between. A slice that was handed over earlier may still arrive late, so two owners overlap by one slice a partition.

The next slice of a partition is handed over after the acknowledgement of the slice before it. With two on their way,
the first could fail and the second arrive: a hole in the log, whose end a resume trusts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence

from headrace.core.clock import Clock
from headrace.kafka.interface import (
    Appended,
    BrokerUnavailableError,
    KafkaError,
    Outgoing,
    Producer,
    ProducerDeadError,
    passes,
)
from headrace.kafka.retry import retried
from headrace.process.logs import event
from headrace.process.tracing import Exemplar
from headrace.worker.metrics import WorkerMetrics
from headrace.worker.partitions.assignment import Assignment
from headrace.worker.partitions.partition import Partition
from headrace.worker.stages.encode import Encoded

STOP_S = 5.0
FIRST_RETRY_S, LONGEST_RETRY_S = 0.2, 5.0
"""How long to wait after a producer failed to start, doubled each time."""


class AnswerProducer:
    """A producer that is replaced when it is dead or an acknowledgement is too late.

    An idempotent producer retries for ever, so a producer that is given up could still write later. It is stopped
    before the next one starts. Starting the next one is tried again until it succeeds.
    """

    def __init__(
        self, make: Callable[[], Producer], *, timeout: float, sleep: Callable[[float], Awaitable[None]]
    ) -> None:
        self._make = make
        self._timeout = timeout
        self._sleep = sleep
        self._producer: Producer | None = None
        self._replacing: asyncio.Task[Producer] | None = None
        self.missing: str | None = None
        """Why there is no producer now, in words; None when there is one."""

    async def start(self) -> None:
        producer = self._make()
        await producer.start()
        self._producer = producer

    async def stop(self) -> None:
        if self._replacing is not None:
            self._replacing.cancel()
            await asyncio.wait((self._replacing,))
        if self._producer is not None:
            await _stop(self._producer)

    async def ready(self) -> None:
        """Wait until there is a producer, so that the next ``send_batch`` hands over at once. Raises a KafkaError."""
        if self._producer is None:
            await self._replaced()

    async def send_batch(self, topic: str, partition: int, records: Sequence[Outgoing]) -> Appended:
        """Raises a KafkaError when the records are not known to be appended."""
        producer = self._producer or await self._replaced()
        try:
            async with asyncio.timeout(self._timeout):
                return await producer.send_batch(topic, partition, records)
        except TimeoutError as error:
            self._replace(producer, f"no acknowledgement within {self._timeout:g} s")
            raise ProducerDeadError(f"{topic}[{partition}] did not acknowledge within {self._timeout:g} s") from error
        except ProducerDeadError as error:
            self._replace(producer, str(error))
            raise

    def _replace(self, producer: Producer, why: str) -> None:
        if producer is not self._producer:
            return
        event("producer.replaced", level="warning", why=why)
        self._producer, self.missing = None, why
        self._replacing = asyncio.create_task(self._start_another(producer), name="replace the producer")

    async def _start_another(self, dead: Producer) -> Producer:
        """Raises a KafkaError that trying again can't mend."""
        await _stop(dead)
        producer = await retried(
            self._started, sleep=self._sleep, wait_s=FIRST_RETRY_S, longest_s=LONGEST_RETRY_S, tell=self._not_started
        )
        self._producer, self.missing = producer, None
        return producer

    async def _started(self) -> Producer:
        producer = self._make()
        try:
            await producer.start()
        except KafkaError:
            await _stop(producer)
            raise
        return producer

    def _not_started(self, error: KafkaError, wait_s: float) -> None:
        self.missing = str(error)
        event("producer.start_failed", level="warning", error=str(error), retry_in_s=wait_s)

    async def _replaced(self) -> Producer:
        """Wait for the next producer, at most as long as for an acknowledgement. Raises a KafkaError."""
        replacing = self._replacing
        if replacing is None:
            raise ProducerDeadError("The producer was not started.")
        if not (await asyncio.wait((replacing,), timeout=self._timeout))[0]:
            raise BrokerUnavailableError(f"No producer could be started within {self._timeout:g} s: {self.missing}")
        return replacing.result()


async def _stop(producer: Producer) -> None:
    try:
        async with asyncio.timeout(STOP_S):
            await producer.stop()
    except (KafkaError, TimeoutError) as error:
        event("producer.stop_failed", level="warning", error=str(error) or f"not stopped within {STOP_S:g} s")


class Publisher:
    """Hands answers to the producer and notes what is acknowledged."""

    def __init__(
        self,
        producer: AnswerProducer,
        assignment: Assignment,
        *,
        results: str,
        dead_letters: str,
        clock: Clock,
        metrics: WorkerMetrics,
    ) -> None:
        self._producer = producer
        self._assignment = assignment
        self._results = results
        self._dead_letters = dead_letters
        self._clock = clock
        self._metrics = metrics
        self._tasks: set[asyncio.Task[None]] = set()

    def publish(self, batch: Collection[Encoded], trace: Exemplar = None) -> None:
        """Begin to publish every slice of a batch, of this ``trace`` if one is recorded.

        At most IN_WORK slices of a partition (see batch) are here at once.
        """
        handed_over = self._clock.monotonic()
        for encoded in batch:
            task = asyncio.create_task(self._in_turn(encoded, handed_over, trace))
            self._tasks.add(task)
            task.add_done_callback(self._published)

    def _published(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not self._assignment.broken.done():
            self._assignment.broken.set_exception(error)

    async def _in_turn(self, encoded: Encoded, handed_over: float, trace: Exemplar) -> None:
        piece = encoded.slice
        partition = piece.partition
        try:
            if encoded.dead_letters and await self._may_send(partition):
                # Before the slice's turn, so that they are on their way together with the answers before them.
                await self._producer.send_batch(self._dead_letters, partition.name.partition, encoded.dead_letters)
                self._metrics.dead_lettered(encoded.errors, trace)
            if piece.turn is not None:
                await piece.turn
            if await self._may_send(partition):
                partition.in_flight.send(asyncio.current_task())
                await self._send(partition, encoded, trace)
                waited = self._clock.monotonic() - handed_over
                self._metrics.spent("publishing", waited * len(encoded.answers))
        except KafkaError as error:
            if not passes(error):
                raise
            if partition.alive:
                self._assignment.restart(partition.name, f"publishing failed: {error}")
        finally:
            partition.in_flight.end(piece.done)
            self._assignment.batch_due.set()

    async def _may_send(self, partition: Partition) -> bool:
        """Whether something of ``partition`` may be handed over now, when there is a producer."""
        await self._producer.ready()
        return self._assignment.leased() and partition.alive

    async def _send(self, partition: Partition, encoded: Encoded, trace: Exemplar) -> None:
        number = partition.name.partition
        begun = self._clock.monotonic()
        place = await self._producer.send_batch(self._results, number, encoded.answers)
        if place.offset < partition.progress.results_end:
            event(
                "results.cut",
                level="error",
                partition=number,
                end=place.offset,
                was=partition.progress.results_end,
                why="acknowledged answers are gone and later ones stand in their place (an unclean election, or the "
                "topic was made anew): readers that begin again are told of a hole",
            )
        last = int(encoded.slice.requests.records.offsets[-1])
        partition.progress.answered(last, place.offset + len(encoded.answers))
        took = self._clock.monotonic() - begun
        self._metrics.published(encoded.statuses, took, abstained=encoded.abstained, trace=trace)
