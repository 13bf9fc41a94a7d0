"""A fresh twin of Kafka in simulated time, and members for it."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Coroutine
from typing import Any

from headrace.kafka.interface import Consumer, Outgoing, TopicPartition, TopicSpec
from tests.support.memory_kafka import Faults, MemoryCluster, MemoryNode, MemoryTimings
from tests.support.turned_loop import TurnedClock, run_turned

P0 = TopicPartition("t", 0)


class Seeker:
    """A rebalance listener that seeks what it gets to the start and remembers what it was told."""

    def __init__(self, consumer: Consumer) -> None:
        self.consumer = consumer
        self.told: list[str] = []

    async def revoked(self, partitions: Collection[TopicPartition]) -> None:
        self.told.append("revoked")

    async def assigned(self, partitions: Collection[TopicPartition]) -> None:
        self.told.append("assigned")
        for partition in partitions:
            self.consumer.seek(partition, 0)


def simulated(
    story: Callable[[MemoryCluster], Coroutine[Any, Any, None]],
    *,
    faults: Faults | None = None,
    seed: int = 0,
    partitions: int = 2,
    **timings: float,
) -> None:
    """Run ``story`` with a fresh twin in simulated time."""

    async def main() -> None:
        cluster = MemoryCluster(TurnedClock(), random.Random(seed), faults, MemoryTimings(**timings))
        cluster.create_topic(TopicSpec(name="t", partitions=partitions))
        try:
            await story(cluster)
        finally:
            await cluster.close()

    run_turned(main())


async def join(node: MemoryNode, *, member: str | None = None) -> tuple[Consumer, Seeker]:
    consumer = node.consumer(group="g", member=member)
    await consumer.start()
    seeker = Seeker(consumer)
    await consumer.subscribe(["t"], seeker)
    return consumer, seeker


async def produce(cluster: MemoryCluster, count: int, partition: int = 0) -> None:
    await cluster.producer().send_batch("t", partition, [Outgoing(f"{number}".encode()) for number in range(count)])
