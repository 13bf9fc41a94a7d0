"""What the contract tests share: a listener that remembers, and waiting with a limit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

from headrace.kafka.interface import Cluster, Consumer, Record, TopicPartition
from tests.support.waiting import within

LIMIT_S = 30.0


class Member:
    """A consumer in a group, with what it was told; it seeks every partition it gets to ``start``."""

    def __init__(self, consumer: Consumer, start: int = 0) -> None:
        self.consumer = consumer
        self.events: list[tuple[str, frozenset[TopicPartition]]] = []
        self._start = start
        self._told = asyncio.Event()

    async def revoked(self, partitions: Collection[TopicPartition]) -> None:
        self._tell("revoked", partitions)

    async def assigned(self, partitions: Collection[TopicPartition]) -> None:
        for partition in partitions:
            self.consumer.seek(partition, self._start)
        self._tell("assigned", partitions)

    @property
    def assigned_now(self) -> frozenset[TopicPartition]:
        """What the last event left this member with."""
        return self.events[-1][1] if self.events and self.events[-1][0] == "assigned" else frozenset()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until ``condition`` holds, looking again at every event."""
        async with within(LIMIT_S, f"what is awaited after {self.events}"):
            while not condition():
                self._told.clear()
                await self._told.wait()

    def _tell(self, what: str, partitions: Collection[TopicPartition]) -> None:
        self.events.append((what, frozenset(partitions)))
        self._told.set()


_joined: list[Consumer] = []


async def end_members() -> None:
    """Stop the members of a test, also of one that failed: aiokafka's tasks ignore the cancellation by a closing loop,
    which would wait for them for ever.
    """
    while _joined:
        await _joined.pop().stop()


async def join(cluster: Cluster, group: str, topic: str, *, member: str | None = None) -> Member:
    consumer = cluster.consumer(group=group, member=member)
    await consumer.start()
    _joined.append(consumer)
    joined = Member(consumer)
    await consumer.subscribe([topic], joined)
    return joined


async def read(consumer: Consumer, count: int) -> list[Record]:
    """Fetch until ``count`` records are there."""
    records: list[Record] = []
    async with within(LIMIT_S, f"the fetch of {count} records"):
        while len(records) < count:
            for chunk in (await consumer.fetch(max_records=count - len(records), timeout_s=1.0)).values():
                records.extend(chunk)
    return records


async def read_from(consumer: Consumer, partition: TopicPartition, offset: int, count: int) -> list[Record]:
    consumer.assign([partition])
    consumer.seek(partition, offset)
    return await read(consumer, count)
