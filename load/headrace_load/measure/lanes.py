"""A lane for each partition: one batch under way, and behind it what was sent meanwhile, as Kafka's own producer does.

Whoever sends waits for no acknowledgement. How much may be in the lanes is bounded, so a broker that is slow makes the
producer late in the end, and that is measured.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Sequence
from functools import lru_cache

from aiokafka.partitioner import murmur2

from headrace.client import Client, KafkaError, Outgoing, Published
from headrace_load.measure.columns import SENT
from headrace_load.measure.rows import Rows
from headrace_load.workload.requests import Planned

MOST_RECORDS = 2000
MOST_BYTES = 256 * 1024
"""Of one batch. Half of the client's own bound, so that a batch stays one and its offsets follow each other."""
ALL_RECORDS = 100_000
ALL_BYTES = 128 * 1024 * 1024
_OVERHEAD = 80  # bytes of a record beside its value and its key, headers included, roughly
_PIECE = 500

_Sent = tuple[Planned, int, int]  # a request, when it was sent (microseconds), its size (bytes)


class Lanes:
    """Takes requests, appends them by ``client`` and keeps a row of each that has an outcome."""

    def __init__(self, client: Client, partitions: int, begin_us: int) -> None:
        self._client = client
        self._begin_us = begin_us
        self._turn = itertools.cycle(range(partitions))
        self._waiting: list[deque[_Sent]] = [deque() for _ in range(partitions)]
        self._wake = [asyncio.Event() for _ in range(partitions)]
        self._of_key = lru_cache(100_000)(lambda key: (murmur2(key) & 0x7FFFFFFF) % partitions)
        self._out_records = 0
        self._out_bytes = 0
        self._tasks = [asyncio.create_task(self._run(number)) for number in range(partitions)]
        self.rows = Rows(SENT)
        self.sent = 0
        self.failed = 0
        self.error: str | None = None
        self.settled = asyncio.Event()
        """Set whenever a batch has an outcome; for the waiter to clear."""

    @property
    def room(self) -> bool:
        """Whether more may be sent."""
        return self._out_records < ALL_RECORDS and self._out_bytes < ALL_BYTES

    @property
    def empty(self) -> bool:
        return not self._out_records

    def send(self, requests: Sequence[Planned], now_us: int) -> None:
        """Send ``requests``: keyed ones by Kafka's default partitioner, the others by pieces to each lane in turn."""
        keyless: list[_Sent] = []
        for request in requests:
            size = len(request.value or b"") + len(request.key or b"") + _OVERHEAD
            self._out_bytes += size
            if request.key is None:
                keyless.append((request, now_us, size))
            else:
                lane = self._of_key(request.key)
                self._waiting[lane].append((request, now_us, size))
                self._wake[lane].set()
        for start in range(0, len(keyless), _PIECE):
            lane = next(self._turn)
            self._waiting[lane].extend(keyless[start : start + _PIECE])
            self._wake[lane].set()
        self._out_records += len(requests)
        self.sent += len(requests)

    async def stop(self) -> None:
        """Give up what has no outcome: it counts as not acknowledged. Raises what ended lanes, all of it."""
        for task in self._tasks:
            task.cancel()
        outcomes = await asyncio.gather(*self._tasks, return_exceptions=True)
        for partition, waiting in enumerate(self._waiting):
            if waiting:
                self._took_place(partition, list(waiting), None)
        if failed := [outcome for outcome in outcomes if isinstance(outcome, Exception)]:
            raise failed[0] if len(failed) == 1 else ExceptionGroup("Several lanes of the producer failed", failed)

    async def _run(self, partition: int) -> None:
        waiting, wake = self._waiting[partition], self._wake[partition]
        while True:
            await wake.wait()
            wake.clear()
            while waiting:
                batch = _batch(waiting)
                published: list[Published] | None = None
                try:
                    published = await self._client.publish_many(
                        [Outgoing(r.value, r.key, r.headers, sent_us // 1000) for r, sent_us, _ in batch],
                        partition=partition,
                    )
                except KafkaError as error:
                    self.error = str(error)
                finally:
                    self._took_place(partition, batch, published)

    def _took_place(self, partition: int, batch: list[_Sent], published: list[Published] | None) -> None:
        now_us = time.time_ns() // 1000
        count = len(batch)
        self._out_records -= count
        self._out_bytes -= sum(size for _, _, size in batch)
        if published is None:
            self.failed += count
        self.rows.add(
            number=[request.number for request, _, _ in batch],
            partition=[partition] * count,
            offset=[-1] * count if published is None else [place.offset for place in published],
            crc=[0] * count if published is None else [place.crc for place in published],
            bytes=[len(request.value or b"") for request, _, _ in batch],
            good=[request.good for request, _, _ in batch],
            due_us=[self._begin_us + int(request.due_s * 1e6) for request, _, _ in batch],
            sent_us=[sent_us for _, sent_us, _ in batch],
            acked_us=[-1 if published is None else now_us] * count,
        )
        self.settled.set()


def _batch(waiting: deque[_Sent]) -> list[_Sent]:
    """Take from the front what fits one batch, at least one."""
    batch = [waiting.popleft()]
    size = batch[0][2]
    while waiting and len(batch) < MOST_RECORDS and (size := size + waiting[0][2]) <= MOST_BYTES:
        batch.append(waiting.popleft())
    return batch
