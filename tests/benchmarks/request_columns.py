"""The CPU time of a request in a worker, from the fetched bytes to the records of its answer, as a table in Markdown.

    python -m tests.benchmarks.request_columns

Sockets, broker and aiokafka's own loops are left out. Requests come in chunks of 5,000, 50 and 5, are all `ok` or all
`expired`, and are answered by the cpu backend with random weights, and by one that asks no model. Process time of one
thread, the best of seven.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from aiokafka.consumer.fetcher import READ_COMMITTED, FetchResult, PartitionRecords
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from prometheus_client import CollectorRegistry

from headrace.core.batching import cut
from headrace.kafka.aio.records import _Fetched
from headrace.kafka.interface import TopicPartition
from headrace.model.backends.interface import Backend, open_backend
from headrace.worker.metrics import WorkerMetrics
from headrace.worker.partitions.partition import Partition
from headrace.worker.pipeline import compute
from headrace.worker.request_values import value_reader
from headrace.worker.stages.batch import Batch, Slice
from headrace.worker.stages.decode import admit
from headrace.worker.stages.encode import Style
from headrace.worker.stages.infer import Breaker, Model
from headrace.worker.versions import Served
from headrace_schemas.headers import JSON, TIMEOUT_MS
from headrace_schemas.paths import RequestShape, compile_copy
from tests.support.networks import random_artifact

NAME = TopicPartition("classify.requests", 0)
TEXT = "a request of some twenty words as they come from a shop, with a name, an order and a question in it, number "
ROUNDS, AT_ONCE, WAITING = 7, 20_000, 4096


class _Position:
    """An assignment of one partition, as a FetchResult sees it."""

    active, paused = True, False

    def __init__(self) -> None:
        self.position = 0

    def state_value(self, _name: Any) -> _Position:
        return self

    def consumed_to(self, position: int) -> None:
        self.position = position


def fetched(count: int, headers: list[tuple[str, bytes]], now_ms: int) -> bytes:
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 24)
    for at in range(count):
        value = json.dumps({"text": f"{TEXT}{at}", "id": str(at)}).encode()
        builder.append(at, timestamp=now_ms, key=None, value=value, headers=headers)
    return bytes(builder.build())


class Stages:
    """The stages of one worker, without what goes over sockets."""

    def __init__(self, backend: Backend) -> None:
        shape = RequestShape()
        model = Model("v", backend.artifact.labels, backend)
        self._served = Served(model, model, Breaker(), None, asyncio.Event())
        self._reader = value_reader(shape)
        self._style = Style(JSON, compile_copy(shape), copies_values=False, batch_bytes=1 << 19)
        self._metrics = WorkerMetrics(CollectorRegistry())

    def answer(self, raw: bytes, now_ms: int, done: asyncio.Future[None]) -> None:
        """Answer the requests of a record set."""
        chunk = PartitionRecords(NAME, MemoryRecords(raw), [], 0, None, None, True, READ_COMMITTED)
        result = FetchResult(NAME, assignment=_Position(), partition_records=chunk, backoff=0)
        _Fetched({NAME: raw}, 1 << 24, in_columns=True)[NAME] = result
        partition = Partition(NAME)
        partition.begin(0, -1, None)
        while records := result.getall(WAITING) if result.has_more() else ():
            requests = admit(records, 0.0, now_ms)
            partition.queue.put(requests)
            self._metrics.fetched(requests.records.timestamps, now_ms)
        while partition.queue:
            plan = cut([partition.queue], max_records=1024, max_bytes=1 << 20, ready_ms=now_ms)
            requests, after, lost = partition.queue.take(plan.taken[0])
            batch = Batch([Slice(partition, requests, after, lost, None, None, done)], now_ms, len(requests))
            compute(
                batch,
                self._served,
                reader=self._reader,
                style=self._style,
                ranking=0,
                explains=False,
                monotonic=time.monotonic,
            )


def microseconds(stages: Stages, count: int, done: asyncio.Future[None], *, late: bool) -> float:
    """Process time of one request."""
    now_ms = time.time_ns() // 1_000_000
    raw = fetched(count, [(TIMEOUT_MS, b"1" if late else b"600000")], now_ms - 1000)
    times = max(1, AT_ONCE // count // 4)
    best = float("inf")
    for _ in range(ROUNDS):
        begun = time.process_time()
        for _ in range(times):
            stages.answer(raw, now_ms, done)
        best = min(best, (time.process_time() - begun) / times / count)
    return 1e6 * best


def main() -> None:
    artifact = random_artifact(1, max_tokens=256, dimensions=128, filters=100, extra_words=30_000)
    done = asyncio.new_event_loop().create_future()
    print("| us of CPU a request | 5,000 in a chunk | 50 | 5 |\n|---|---|---|---|")
    for backend in ("cpu", "constant"):
        stages = Stages(open_backend(backend, artifact))
        for late in (False, True):
            cells = [f"{microseconds(stages, count, done, late=late):.2f}" for count in (5000, 50, 5)]
            print(f"| {backend}, {'expired' if late else 'ok'} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
