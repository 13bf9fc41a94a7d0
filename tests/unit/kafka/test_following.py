"""Following a topic: from where, in which order, and what a topic that vanishes or is overtaken does."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from headrace.core.clock import SystemClock
from headrace.kafka import following
from headrace.kafka.following import follow
from headrace.kafka.interface import Outgoing, Record, TopicPartition, TopicSpec
from tests.support.memory_kafka import MemoryCluster
from tests.support.waiting import until


class Follower:
    """Follows "t" and keeps the values that came."""

    def __init__(self, cluster: MemoryCluster, *, from_end: bool) -> None:
        self.values: list[bytes | None] = []
        self.fetches = 0
        self.task = asyncio.create_task(
            follow(cluster, "t", self.take, from_end=from_end, doing="a test", clock=SystemClock())
        )

    async def take(self, chunks: Mapping[TopicPartition, Sequence[Record]]) -> None:
        self.fetches += 1
        self.values += [record.value for records in chunks.values() for record in records]

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def send(cluster: MemoryCluster, *values: bytes) -> None:
    producer = cluster.producer()
    await producer.start()
    await producer.send_batch("t", 0, [Outgoing(value) for value in values])


@pytest.mark.parametrize(("from_end", "expected"), [(False, [b"a", b"b", b"c"]), (True, [b"c"])])
async def test_it_begins_where_it_was_told(from_end: bool, expected: list[bytes]) -> None:
    cluster = MemoryCluster(SystemClock())
    cluster.create_topic(TopicSpec(name="t", partitions=1))
    await send(cluster, b"a", b"b")
    follower = Follower(cluster, from_end=from_end)
    await until(lambda: follower.fetches, 60)
    await send(cluster, b"c")
    await until(lambda: follower.values == expected, 60)
    await follower.stop()


async def test_a_topic_that_is_not_there_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "LOOK_S", 0.01)
    cluster = MemoryCluster(SystemClock())
    follower = Follower(cluster, from_end=False)
    cluster.create_topic(TopicSpec(name="t", partitions=1))
    await send(cluster, b"a")
    await until(lambda: follower.values == [b"a"], 60)
    await follower.stop()


async def test_what_taking_raises_ends_it() -> None:
    cluster = MemoryCluster(SystemClock())
    cluster.create_topic(TopicSpec(name="t", partitions=1))

    async def refuse(_: object) -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        await follow(cluster, "t", refuse, from_end=False, doing="a test", clock=SystemClock())
