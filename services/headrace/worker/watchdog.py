"""The watchdog: it measures the lag, and ends the process when requests wait and nothing moves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping

from headrace.core.clock import Clock, believable
from headrace.core.errors import UserError
from headrace.kafka.interface import Consumer, KafkaError, TopicPartition
from headrace.worker.metrics import WorkerMetrics
from headrace.worker.partitions.assignment import Assignment
from headrace.worker.partitions.partition import Partition

EVERY_S = 1.0
MEASURE_LIMIT_S = 5.0
"""Past it the lag is unknown. Otherwise the last figures would stay while a broker holds connections and is silent."""


class StalledError(UserError):
    """Requests wait and nothing moves, without an error: only a new process helps (aiokafka #1037, #1154)."""


class Watchdog:
    """Measures the lag every second, and the lag of the event loop with it.

    A partition without progress for ``limit`` seconds has stalled, unless the model is broken or ``long_batch_steps``
    grows: the consumer unpacks a long batch.
    """

    def __init__(
        self,
        reader: Consumer,
        assignment: Assignment,
        *,
        fetch_positions: Callable[[Collection[TopicPartition]], Awaitable[Mapping[TopicPartition, int]]],
        limit: float,
        model_broken: Callable[[], bool],
        long_batch_steps: Callable[[], int],
        clock: Clock,
        metrics: WorkerMetrics,
    ) -> None:
        self._reader = reader
        self._assignment = assignment
        self._fetch_positions = fetch_positions
        self._limit = limit
        self._model_broken = model_broken
        self._long_batch_steps = long_batch_steps
        self._steps_seen = 0
        self._clock = clock
        self._metrics = metrics
        self._moved: dict[TopicPartition, tuple[int, float]] = {}

    async def run(self) -> None:
        """Raises StalledError."""
        while True:
            before = self._clock.monotonic()
            await self._clock.sleep(EVERY_S)
            self._metrics.loop_lag(max(0.0, self._clock.monotonic() - before - EVERY_S))
            try:
                async with asyncio.timeout(MEASURE_LIMIT_S):
                    await self._measure()
            except (KafkaError, TimeoutError) as error:
                # Without the end offsets no partition can be called stalled.
                if isinstance(error, KafkaError) and not error.retriable:
                    raise
                self._moved.clear()
                self._metrics.lag_unknown()

    async def _measure(self) -> None:
        partitions = dict(self._assignment.partitions)
        for partition in partitions.values():
            partition.end_seen = None
        ends = await self._reader.end_offsets(list(partitions))
        # Where no request is here, what lies up to the fetch position holds none.
        fetched = await self._fetch_positions([name for name, partition in partitions.items() if _idle(partition)])
        now = self._clock.monotonic()
        now_ms = self._clock.now_ms()
        steps = self._long_batch_steps()
        waits = self._model_broken() or steps != self._steps_seen
        self._steps_seen = steps
        for name, partition in partitions.items():
            partition.end_seen = ends[name]
            being_resumed = not partition.resumed and partition.unanswerable is None
            answered = max(partition.progress.position, fetched.get(name, 0))
            lag = 0 if being_resumed else max(0, ends[name] - answered)
            if being_resumed:
                self._metrics.lag_unknown(name.partition)
            else:
                self._metrics.lag(name.partition, lag, _age_s(partition, now, now_ms))
            position, since = self._moved.get(name, (-1, now))
            told = partition.unanswerable is not None
            if not lag or told or waits or position != partition.progress.position:
                self._moved[name] = (partition.progress.position, now)
            elif now - since > self._limit:
                raise StalledError(
                    f"{name.topic}[{name.partition}] has stood at {position} for {now - since:.0f} s although it "
                    f"ends at {ends[name]}: ending the process, so that another takes over."
                )
        self._metrics.queue("batch", sum(len(partition.queue) for partition in partitions.values()))
        self._metrics.queue("publish", sum(partition.in_flight.slices for partition in partitions.values()))
        self._moved = {name: moved for name, moved in self._moved.items() if name in partitions}


def _idle(partition: Partition) -> bool:
    """Whether every request that was fetched is answered."""
    return partition.alive and partition.resumed and not partition.queue and not partition.in_flight.slices


def _age_s(partition: Partition, now_s: float, now_ms: int) -> float:
    """Age of the oldest request without an acknowledged answer, by its timestamp, or since its fetch if that is not
    believable.
    """
    oldest = next(iter(partition.in_flight.oldest.values()), None)
    if oldest is None:
        if not partition.queue:
            return 0.0
        oldest = partition.queue.oldest
    earliest, latest = believable(now_ms)
    if earliest <= oldest.timestamp <= latest:
        return max(0.0, (now_ms - oldest.timestamp) / 1000)
    return max(0.0, now_s - oldest.came_s)
