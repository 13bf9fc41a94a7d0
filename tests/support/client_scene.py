"""A client and a worker over the in-memory twin, on a turned clock, for the client's tests."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from headrace.client import Client
from headrace.kafka.aio.producer import partition_of_key
from headrace.kafka.interface import TopicPartition, TopicSpec
from tests.support.answer_log import AnswerWriter
from tests.support.memory_kafka import MemoryCluster
from tests.support.turned_loop import TurnedClock, run_turned

LIMIT_S = 5000.0
"""Seconds of the turned clock, which pass at once when a test waits in vain."""

REQUESTS, RESULTS = "classify.requests", "classify.results"


class Scene:
    """A client and a worker over the twin."""

    def __init__(self, partitions: int = 2) -> None:
        self.clock = TurnedClock()
        self.fault: Callable[[str], Coroutine[Any, Any, None]] | None = None
        self.cluster = MemoryCluster(self.clock, faults=self)
        for name in (REQUESTS, RESULTS):
            self.cluster.create_topic(TopicSpec(name=name, partitions=partitions))
        self.writer = AnswerWriter(self.cluster, self.clock, REQUESTS, RESULTS, partitions)
        self.client = Client(self.cluster, clock=self.clock)

    async def point(self, member: str, name: str) -> None:
        await asyncio.sleep(0)
        if self.fault is not None:
            await self.fault(name)

    def records(self, topic: str = REQUESTS, partition: int = 0) -> list[Any]:
        return self.cluster.log(TopicPartition(topic, partition)).records


def scene(play: Callable[[Scene], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def test() -> None:
        async def main() -> None:
            stage = Scene()
            try:
                async with asyncio.timeout(LIMIT_S), stage.client:
                    await play(stage)
            finally:
                await stage.cluster.close()

        run_turned(main())

    test.__name__ = play.__name__
    return test


async def published(stage: Scene) -> None:
    while not any(stage.records(partition=number) for number in (0, 1)):
        await stage.clock.sleep(0.01)


KEY = next(str(number) for number in range(100) if partition_of_key(str(number).encode(), 2) == 0)
