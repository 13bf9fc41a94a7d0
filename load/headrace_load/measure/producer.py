"""A producer process: it sends each request when it is due, whatever happened to earlier ones.

A thread makes requests ahead of time, so that making them delays no request that is due. Each partition has a queue
with one batch under way, as in Kafka's own producer. The queues are bounded, so a slow broker makes the producer late,
and the lateness is measured.

$ python -m headrace_load.measure.producer JOB.json
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import sys
import threading
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from functools import lru_cache
from operator import attrgetter
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np
from aiokafka.partitioner import murmur2

from headrace.client import Client, KafkaError, Outgoing, Published
from headrace_load.measure.audit import SENT, Rows
from headrace_load.measure.processes import (
    Begin,
    Parent,
    ProducerJob,
    ProducerProgress,
    Ready,
    Stop,
    rows_file,
    serve,
)
from headrace_load.workload.requests import Planned, requests
from headrace_load.workload.spec import Backlog

MOST_RECORDS = 2000
MOST_BYTES = 256 * 1024
"""Most bytes of a batch: half of the client's own bound, so that a batch is not split and its offsets are
consecutive.
"""
ALL_RECORDS = 100_000
ALL_BYTES = 128 * 1024 * 1024
_OVERHEAD = 80  # bytes of a record beside its value and its key, headers included, roughly
_PIECE = 500

_Sent = tuple[Planned, int, int]  # a request, when it was sent (microseconds), its size (bytes)


class PartitionQueues:
    """Takes requests, appends them by ``client`` and keeps a row of each outcome."""

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
        """Set whenever a batch has an outcome. The waiter clears it."""

    @property
    def room(self) -> bool:
        """Whether more may be sent."""
        return self._out_records < ALL_RECORDS and self._out_bytes < ALL_BYTES

    @property
    def empty(self) -> bool:
        return not self._out_records

    def send(self, requests: Sequence[Planned], now_us: int) -> None:
        """Send ``requests``: keyed ones by Kafka's default partitioner, the others piece by piece to each queue in
        turn.
        """
        keyless: list[_Sent] = []
        for request in requests:
            size = len(request.value or b"") + len(request.key or b"") + _OVERHEAD
            self._out_bytes += size
            if request.key is None:
                keyless.append((request, now_us, size))
            else:
                queue = self._of_key(request.key)
                self._waiting[queue].append((request, now_us, size))
                self._wake[queue].set()
        for start in range(0, len(keyless), _PIECE):
            queue = next(self._turn)
            self._waiting[queue].extend(keyless[start : start + _PIECE])
            self._wake[queue].set()
        self._out_records += len(requests)
        self.sent += len(requests)

    async def stop(self) -> None:
        """Give up requests without an outcome: they count as not acknowledged. Raises all errors that ended queues."""
        for task in self._tasks:
            task.cancel()
        outcomes = await asyncio.gather(*self._tasks, return_exceptions=True)
        for partition, waiting in enumerate(self._waiting):
            if waiting:
                self._record_outcome(partition, list(waiting), None)
        if failed := [outcome for outcome in outcomes if isinstance(outcome, Exception)]:
            raise failed[0] if len(failed) == 1 else ExceptionGroup("Several queues of the producer failed", failed)

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
                    self._record_outcome(partition, batch, published)

    def _record_outcome(self, partition: int, batch: list[_Sent], published: list[Published] | None) -> None:
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
    """Take as many requests from the front as fit a batch, at least one."""
    batch = [waiting.popleft()]
    size = batch[0][2]
    while waiting and len(batch) < MOST_RECORDS and (size := size + waiting[0][2]) <= MOST_BYTES:
        batch.append(waiting.popleft())
    return batch


CHUNK = 1000
MOST_CHUNKS = 200
_due = attrgetter("due_s")


class RequestBuffer:
    """Holds at most :data:`MOST_CHUNKS` chunks of ``requests``, which are in the order of their time."""

    def __init__(self, requests: Iterator[Planned]) -> None:
        self._requests = requests
        self._chunks: deque[list[Planned]] = deque()
        self._at = 0  # in the first chunk
        self._room = threading.Semaphore(MOST_CHUNKS)
        self._filled = threading.Event()
        self._stopped = False
        self._ended = False
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._fill, name="requests", daemon=True)

    def start(self) -> None:
        """Begin to make requests. Returns when the buffer is full, or no more are to be made."""
        self._thread.start()
        self._filled.wait()

    def stop(self) -> None:
        self._stopped = True
        self._room.release()
        self._thread.join()

    @property
    def exhausted(self) -> bool:
        """Whether all requests were taken. Raises an error of making them."""
        ended = self._ended  # looked at first: chunks may still come before it is set
        if self._chunks:
            return False
        if self._error is not None:
            raise self._error
        return ended

    def next_due_s(self) -> float | None:
        """When the next request is due; None if there is none yet, or no more."""
        return self._chunks[0][self._at].due_s if self._chunks else None

    def waiting(self, now_s: float) -> int:
        """How many made requests are due by ``now_s`` and not taken yet."""
        count = -self._at if self._chunks else 0
        for chunk in tuple(self._chunks):
            if chunk[-1].due_s > now_s:
                return max(0, count + bisect_right(chunk, now_s, key=_due))
            count += len(chunk)
        return count

    def take(self, now_s: float, most: int) -> list[Planned]:
        """Take up to ``most`` requests that are due by ``now_s``."""
        taken: list[Planned] = []
        while self._chunks and len(taken) < most:
            chunk = self._chunks[0]
            until = len(chunk) if chunk[-1].due_s <= now_s else bisect_right(chunk, now_s, self._at, key=_due)
            until = min(until, self._at + most - len(taken))
            taken += chunk[self._at : until]
            self._at = until
            if until < len(chunk):
                break
            self._chunks.popleft()
            self._at = 0
            self._room.release()
        return taken

    def _fill(self) -> None:
        try:
            while not self._stopped and (chunk := list(itertools.islice(self._requests, CHUNK))):
                if not self._room.acquire(blocking=False):
                    self._filled.set()
                    self._room.acquire()
                self._chunks.append(chunk)
        except Exception as error:  # noqa: BLE001 - it is raised where the requests are taken
            self._error = error
        self._ended = True
        self._filled.set()


PAUSE_S = 0.001
"""The time between two sends. Requests that come due in it are sent together."""
MOST_AT_ONCE = 2000
OVERTIME_S = 1.0
"""How long after the end of its run a late producer goes on sending before it gives the rest up."""
SWITCH_S = 0.0005
TELL_S = 1.0


async def main(job: ProducerJob, parent: Parent) -> None:
    """Prepare, wait for the beginning, produce, write the rows down."""
    # The thread that makes requests must give way at once to the one that sends them.
    sys.setswitchinterval(SWITCH_S)
    texts = msgspec.json.decode(await asyncio.to_thread(Path(job.texts).read_bytes), type=list[str])
    buffer = RequestBuffer(requests(job.workload, job.producer, texts, ids=job.ids))
    await asyncio.to_thread(buffer.start)
    async with job.system.client() as client:
        partitions = len(await client.request_partitions())
        if not partitions:
            raise SystemExit(
                f"There is no topic {job.system.requests} to publish to. `headrace topics apply` makes it."
            )
        gc.collect()
        gc.freeze()
        parent.say(Ready())
        begin = await parent.order()
        if not isinstance(begin, Begin):
            return
        producing = Producing(job, PartitionQueues(client, partitions, begin.at_us), buffer, begin.at_us)
        with rows_file(job) as file:
            if await _produced(producing, parent, file):
                producing.flush(file)
                parent.say(producing.told(None))


async def _produced(producing: Producing, parent: Parent, file: BinaryIO) -> bool:
    """Run to the end; False when the parent has ended."""
    telling = asyncio.create_task(producing.tell(parent, file))
    order = asyncio.create_task(parent.order())
    run = asyncio.create_task(producing.run())
    try:
        await asyncio.wait((run, order, telling), return_when=asyncio.FIRST_COMPLETED)
        if order.done() and order.exception() is None and isinstance(order.result(), Stop):
            producing.send_no_more()
            await asyncio.wait((run, telling), return_when=asyncio.FIRST_COMPLETED)
        if not run.done():
            return False
    finally:
        for task in (telling, order, run):
            task.cancel()
        await asyncio.wait((run,))
        await producing.queues.stop()
    run.result()
    return True


class Producing:
    """The open loop."""

    def __init__(self, job: ProducerJob, queues: PartitionQueues, buffer: RequestBuffer, begin_us: int) -> None:
        workload = job.workload
        self._buffer = buffer
        self._begin_us = begin_us
        self._patience_s = workload.settle
        backlog = isinstance(workload.arrivals, Backlog)
        self._end_s = float("inf") if backlog else workload.warm_up + workload.seconds + OVERTIME_S
        self._complete = False
        self.queues = queues

    async def run(self) -> None:
        """Send all, then wait for the last outcomes, at most ``settle`` seconds after the latest one."""
        try:
            await self._send()
            while not self.queues.empty and await self._outcome(self._patience_s):
                pass
        finally:
            self._buffer.stop()

    def send_no_more(self) -> None:
        """Stop sending. Outcomes of sent requests are still waited for."""
        self._end_s = 0.0

    async def tell(self, parent: Parent, file: BinaryIO) -> None:
        """Report progress about once a second."""
        while True:
            await asyncio.sleep(TELL_S)
            parent.say(self.told(self.flush(file)))

    def flush(self, file: BinaryIO) -> float | None:
        """Write the rows since the last time; returns the 99th percentile of their lateness in microseconds."""
        rows = self.queues.rows.flush(file)
        return float(np.percentile(rows["sent_us"] - rows["due_us"], 99)) if len(rows) else None

    def told(self, late_p99_us: float | None) -> ProducerProgress:
        queues = self.queues
        return ProducerProgress(
            due=queues.sent + self._buffer.waiting(self._now_s()),
            sent=queues.sent,
            acked=len(queues.rows) - queues.failed,
            failed=queues.failed,
            late_p99_us=late_p99_us,
            complete=self._complete,
            error=queues.error,
        )

    def _now_s(self) -> float:
        return (time.time_ns() // 1000 - self._begin_us) / 1e6

    async def _send(self) -> None:
        while not self._buffer.exhausted:
            now_s = self._now_s()
            if now_s > self._end_s:
                return
            if not self.queues.room:
                if not await self._outcome(self._patience_s):
                    return
                continue
            due = self._buffer.take(now_s, MOST_AT_ONCE)
            if due:
                self.queues.send(due, time.time_ns() // 1000)
            next_s = self._buffer.next_due_s()
            await asyncio.sleep(PAUSE_S if next_s is None else max(PAUSE_S, next_s - self._now_s()))
        self._complete = True

    async def _outcome(self, limit_s: float) -> bool:
        """Wait for a batch's outcome; False when none comes."""
        self.queues.settled.clear()
        try:
            await asyncio.wait_for(self.queues.settled.wait(), limit_s)
        except TimeoutError:
            return False
        return True


if __name__ == "__main__":
    serve(ProducerJob, main)
