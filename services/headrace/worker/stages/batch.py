"""Batch: when a thread is free, take requests that wait, fairly over the partitions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from headrace.core.batching import ClockAlarm, Closed, ServiceTime, cut, next_first
from headrace.core.clock import Clock
from headrace.kafka.interface import KafkaError, passes
from headrace.process.logs import Recurring, event
from headrace.worker.metrics import WorkerMetrics
from headrace.worker.partitions.assignment import Assignment
from headrace.worker.partitions.partition import (
    MICROSECONDS,
    NEVER,
    Attempts,
    Backpressure,
    Partition,
    Requests,
    microseconds,
)
from headrace_schemas.records import Attempt, Loss

IN_WORK = 2
"""Slices of one partition in work at once: one is published while the next is in the model. The next is handed to the
producer after the acknowledgement of the first."""
HAND_OVER_TURNS = 4
"""Turns of the event loop from the acknowledgement of a slice, or from its publish, to the next slice's way to the
socket: its task, aiokafka's sender, its request's task, and the connection's write."""
RETRY_S = 0.2

WriteAttempts = Callable[[Sequence[Attempt]], Awaitable[None]]


class Slice(msgspec.Struct, frozen=True, eq=False):
    """Consecutive requests of one partition in a batch.

    ``after`` is the offset of the request before them. ``turn`` is done when the slice before this one is acknowledged
    or given up, ``done`` when this one is.
    """

    partition: Partition
    requests: Requests
    after: int
    lost: Loss | None
    condemned: int | None
    turn: asyncio.Future[None] | None
    done: asyncio.Future[None]


class Batch(msgspec.Struct, frozen=True, eq=False):
    """Requests that go through the model together. Those that expire before ``ready_ms`` are answered ``expired``.

    ``weight`` stands for the time that the batch takes: its number of requests, or more where they are large.
    """

    slices: list[Slice]
    ready_ms: float
    weight: int

    @property
    def size(self) -> int:
        return sum(len(piece.requests) for piece in self.slices)

    @property
    def wanted(self) -> bool:
        """Whether this worker still owns one of its partitions."""
        return any(piece.partition.alive for piece in self.slices)

    def give_up(self) -> None:
        """Nothing of it will be published."""
        for piece in self.slices:
            piece.partition.in_flight.end(piece.done)


async def _hand_over() -> None:
    """Let the answers go that may go now, before the next batch is computed on the event loop.

    Otherwise they would wait for it here, and then this worker for the broker.
    """
    for _ in range(HAND_OVER_TURNS):
        await asyncio.sleep(0)


class Batcher:
    """Cuts batches. ``write_attempts`` writes to the log what is about to be tried, once after each resume."""

    def __init__(
        self,
        assignment: Assignment,
        backpressure: Backpressure,
        *,
        service_time: ServiceTime,
        write_attempts: WriteAttempts,
        max_batch: int,
        max_batch_bytes: int,
        clock: Clock,
        metrics: WorkerMetrics,
    ) -> None:
        self._assignment = assignment
        self._service_time = service_time
        self._backpressure = backpressure
        self._write_attempts = write_attempts
        self._max_batch = max_batch
        self._max_batch_bytes = max_batch_bytes
        self._clock = clock
        self._metrics = metrics
        self._alarm = ClockAlarm()
        self._failures = Recurring("attempt.failed")
        self._left_waiting = False
        self._turn = 0

    async def next(self) -> Batch:
        """Wait for requests, and take a batch of them."""
        due = self._assignment.batch_due
        while True:
            await _hand_over()
            while (batch := self._cut()) is None:
                due.clear()
                await due.wait()
                await _hand_over()
            if await self._announce(batch):
                return batch
            batch.give_up()

    async def _announce(self, batch: Batch) -> bool:
        """Write the attempt at each partition whose first batch this is. False when no partition is left."""
        while self._assignment.leased() and batch.wanted:
            alive = [p.attempts for piece in batch.slices if (p := piece.partition).alive]
            try:
                if new := [attempts for attempts in alive if attempts.known != attempts.planned]:
                    await self._write(new)
            except KafkaError as error:
                if not passes(error):
                    raise
                self._failures.event(error=str(error))
                await self._clock.sleep(RETRY_S)
            else:
                return True
        return False

    async def _write(self, new: Sequence[Attempts]) -> None:
        for attempts in new:
            attempts.write()
        acknowledged = False
        try:
            await self._write_attempts([planned for attempts in new if (planned := attempts.planned) is not None])
            acknowledged = True
        finally:
            for attempts in new:
                attempts.wrote(acknowledged=acknowledged)

    def _cut(self) -> Batch | None:
        ready = [p for p in self._assignment.partitions.values() if p.queue and p.in_flight.slices < IN_WORK]
        if not ready:
            return None
        ready_ms = self._clock.now_ms() + 1000 * self._service_time.predict(self._most(ready))
        # Nearly always the request in front of the oldest one says no, and it costs less to look at.
        to_try_alone = [
            p
            for p in ready
            if p.queue.after < p.attempts.alone_through and p.queue.oldest.offset <= p.attempts.alone_through
        ]
        for partition in to_try_alone:
            if not partition.in_flight.slices:
                return self._batch([self._take(partition, 1)], ready_ms, Closed.ALONE)
        trusted = [p for p in ready if p not in to_try_alone] if to_try_alone else ready
        if not trusted:
            return None
        first = self._turn % len(trusted)
        plan = cut(
            [partition.queue for partition in trusted],
            max_records=self._max_batch,
            max_bytes=self._max_batch_bytes,
            ready_ms=ready_ms,
            first=first,
        )
        self._turn = next_first(plan.taken, first)
        slices = [self._take(p, count) for p, count in zip(trusted, plan.taken, strict=True) if count]
        return self._batch(slices, ready_ms, plan.closed)

    def _batch(self, slices: list[Slice], ready_ms: float, closed: Closed) -> Batch:
        batch = Batch(slices, ready_ms, self._weight(slices))
        now_s = self._clock.monotonic()
        now_us = microseconds(now_s)
        oldest_us = min(int(piece.requests.came_us[0]) for piece in slices)
        self._metrics.batch(batch.size, closed)
        self._metrics.stage("batch", (now_us - oldest_us) / MICROSECONDS)
        came_us = sum(int(piece.requests.came_us.sum()) for piece in slices)
        self._metrics.spent("gathering", (batch.size * now_us - came_us) / MICROSECONDS)
        self._watch_clock(batch)
        return batch

    def _most(self, ready: Sequence[Partition]) -> int:
        """The weight of a batch of all that waits: a quiet worker's one request is not as late as a full batch."""
        weight = count = size = 0
        for partition in ready:
            count, size = count + len(partition.queue), size + partition.queue.bytes
            weight = max(count, self._max_batch * size // self._max_batch_bytes)
            if weight >= self._max_batch:
                return self._max_batch
        return weight

    def _weight(self, slices: Sequence[Slice]) -> int:
        """The batch's number of requests, or its part of the most bytes where that is more.

        A single large request must not count as one. The predicted time of a full batch would be a thousand times too
        long, and good requests would expire while large ones come.
        """
        size = sum(len(piece.requests) for piece in slices)
        total_bytes = sum(int(piece.requests.records.sizes.sum()) for piece in slices)
        return max(size, min(self._max_batch, self._max_batch * total_bytes // self._max_batch_bytes))

    def _take(self, partition: Partition, count: int) -> Slice:
        requests, after, lost = partition.queue.take(count)
        turn, done = partition.in_flight.begin(requests.oldest())
        self._backpressure.taken(partition)
        return Slice(partition, requests, after, lost, partition.attempts.condemned, turn, done)

    def _watch_clock(self, batch: Batch) -> None:
        # A request without a deadline says nothing about clocks. Neither does one that expired in a backlog, even if it
        # is the last of the backlog.
        expired = in_time = 0
        for piece in batch.slices:
            seen = piece.partition.end_seen
            late, early = piece.requests.deadlines(batch.ready_ms, NEVER if seen is None else seen)
            expired, in_time = expired + late, in_time + early
        waited, self._left_waiting = self._left_waiting, any(piece.partition.queue for piece in batch.slices)
        if self._alarm.observe(expired=expired, in_time=in_time, lagging=waited or self._left_waiting):
            event(
                "clock.suspect",
                level="error",
                why="requests expire although none waits: compare the clocks of the brokers, the producers and here",
            )
