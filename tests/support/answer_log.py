"""A worker reduced to its answers: it writes the answer log of the twin straight from the requests log."""

from __future__ import annotations

import asyncio
import zlib

from headrace.core.clock import Clock
from headrace.kafka.interface import Outgoing, TopicPartition
from headrace_schemas.codec import encode_result
from headrace_schemas.records import ClassifyResult, Status
from tests.support.memory_kafka import MemoryCluster


def answer(offset: int, after: int, value: bytes = b"", status: Status = Status.OK) -> Outgoing:
    """The record that answers request ``offset`` whose predecessor is ``after``."""
    result = ClassifyResult(
        offset=offset, after=after, crc=zlib.crc32(value), status=status, version="v1", label=f"label {offset}"
    )
    return Outgoing(encode_result(result))


class AnswerWriter:
    """Answers every request of ``partitions`` partitions in order; ``skipped`` offsets of partition 0 are lost."""

    def __init__(self, cluster: MemoryCluster, clock: Clock, requests: str, results: str, partitions: int) -> None:
        self.skipped: set[int] = set()
        self._cluster = cluster
        self._clock = clock
        self._requests = requests
        self._results = results
        self._next = dict.fromkeys(range(partitions), 0)

    def catch_up(self) -> None:
        for number, begin in self._next.items():
            records = self._cluster.log(TopicPartition(self._requests, number)).records[begin:]
            answers = [
                answer(record.offset, record.offset - 1, record.value or b"")
                for record in records
                if number or record.offset not in self.skipped
            ]
            if answers:
                log = self._cluster.log(TopicPartition(self._results, number))
                log.append_batch(answers, self._clock.now_ms())
            self._next[number] += len(records)

    async def run(self, every: float = 0.01) -> None:
        while True:
            self.catch_up()
            await self._clock.sleep(every)

    def start(self) -> asyncio.Task[None]:
        return asyncio.create_task(self.run())
