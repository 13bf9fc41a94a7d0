"""Fetch: requests from Kafka into the partitions' queues, contiguous and bounded.

A getmany that waits during a rebalance can return records of the assignment before it. So every chunk must begin at the
expected offset, else it is fetched again. Only a gap that is seen twice is real: control records of a transaction, or
compaction.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

import numpy as np

from headrace.core.clock import Clock, believable, kind_of
from headrace.core.resume import settled
from headrace.kafka.columns import Columns
from headrace.kafka.interface import Consumer, KafkaError, OffsetOutOfRangeError, Record, TopicPartition
from headrace.process.logs import Recurring, Reminder, event
from headrace.worker.metrics import WorkerMetrics
from headrace.worker.partitions.assignment import Assignment
from headrace.worker.partitions.partition import Backpressure, Partition
from headrace.worker.stages.decode import admit
from headrace_schemas.errors import place

FETCH_WAIT_S = 0.2
SETTLE_S = 0.5
"""How often the fetch position of a partition is read when all of its fetched requests are answered."""
RETRY_S = 0.1


class Fetcher:
    """Polls all the time, also while nothing is assigned or the model is busy."""

    def __init__(
        self,
        consumer: Consumer,
        assignment: Assignment,
        backpressure: Backpressure,
        *,
        max_records: int,
        clock: Clock,
        metrics: WorkerMetrics,
    ) -> None:
        self._consumer = consumer
        self._assignment = assignment
        self._backpressure = backpressure
        self._max_records = max_records
        self._clock = clock
        self._metrics = metrics
        self._settled_s = -SETTLE_S
        self._reminder = Reminder(first_s=60.0, longest_s=3600.0)
        self._failures = Recurring("fetch.failed")

    async def run(self) -> None:
        while True:
            asked = self._clock.monotonic()
            try:
                chunks = await self._consumer.fetch(max_records=self._max_records, timeout_s=FETCH_WAIT_S)
            except OffsetOutOfRangeError as error:
                for name in error.positions:
                    self._assignment.restart(TopicPartition(*name), "the fetch position is outside the log")
                continue
            except KafkaError as error:
                if not error.retriable:
                    raise
                self._failures.event(error=str(error))
                await self._clock.sleep(RETRY_S)
                continue
            if chunks:
                self._metrics.stage("fetch", self._clock.monotonic() - asked)
            for name, records in chunks.items():
                partition = self._assignment.partitions.get(name)
                if partition is not None and (expected := partition.queue.expected) is not None and records:
                    self._take(partition, expected, records)
            await self._settle()
            # A fetch that returns at once must not hold the event loop.
            await asyncio.sleep(0)

    async def _settle(self) -> None:
        """Note how far the fetch has come in partitions whose requests are answered although their logs go on.

        It is called between two fetches, when all that was fetched is in the queues.
        """
        now = self._clock.monotonic()
        if now - self._settled_s < SETTLE_S:
            return
        self._settled_s = now
        for partition in [one for one in self._assignment.partitions.values() if one.short_of_end]:
            try:
                fetched = await self._consumer.position(partition.name)
            except KafkaError as error:
                if not error.retriable:
                    raise
                continue
            if partition.queue.expected is not None and self._assignment.partitions.get(partition.name) is partition:
                behind = settled(
                    answered=partition.progress.position,
                    expected=partition.queue.expected,
                    fetched=fetched,
                    gap=partition.queue.gap is not None,
                )
                partition.settled = max(partition.settled, behind)

    def _take(self, partition: Partition, expected: int, records: Sequence[Record]) -> None:
        if not partition.queue.follows_on(records[0].offset, expected):
            self._metrics.refetched()
            self._consumer.seek(partition.name, expected)
            return
        came_s = self._clock.monotonic()
        now_ms = self._clock.now_ms()
        requests = admit(records, came_s, now_ms)
        partition.queue.put(requests)
        if self._metrics.fetched(requests.records.timestamps, now_ms) < len(requests):
            self._tell_timestamps(requests.records, now_ms, came_s)
        self._backpressure.added(partition)
        self._assignment.batch_due.set()

    def _tell_timestamps(self, records: Columns, now_ms: int, now_s: float) -> None:
        earliest, latest = believable(now_ms)
        stamps = records.timestamps
        odd = np.flatnonzero((stamps < earliest) | (stamps > latest)).tolist()
        kinds = Counter(kind_of(int(stamps[at]), now_ms) for at in odd)
        self._metrics.odd_timestamps(kinds)
        # A record without a timestamp comes from an old client, which is no fault.
        absurd = [at for at in odd if stamps[at] != -1]
        if absurd and (count := self._reminder.count(len(absurd), now_s)):
            offset, timestamp = records.table[:2, absurd[0]].tolist()
            event(
                "timestamps.absurd",
                level="warning",
                requests=count,
                example=place(records.topic, records.partition, offset),
                timestamp=timestamp,
                why="a producer writes other than milliseconds, or its clock is wrong; deadlines count from the fetch",
            )
