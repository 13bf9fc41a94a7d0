"""Reading ranges of a log on the twin: no record before, none behind, no silence taken for an end, and an end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.kafka.interface import BrokerUnavailableError, Record, TopicPartition
from headrace.kafka.range_reader import read_ranges
from tests.support.memory_kafka import MemoryCluster
from tests.support.memory_kafka.consumer import MemoryConsumer
from tests.support.twin import P0, produce, simulated

P1 = TopicPartition("t", 1)


async def read(
    cluster: MemoryCluster, starts: dict[TopicPartition, int], ends: dict[TopicPartition, int], chunk: int = 7
) -> list[Record]:
    consumer = cluster.consumer()
    await consumer.start()
    try:
        found: list[Record] = []
        async for records in read_ranges(consumer, starts, ends, chunk=chunk):
            assert 0 < len(records) <= chunk
            found += records
        return found
    finally:
        await consumer.stop()


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30), st.integers(1, 40))
def test_what_lies_between_is_read_in_order_and_nothing_else(one: int, other: int, count: int, chunk: int) -> None:
    async def story(cluster: MemoryCluster) -> None:
        for partition in (0, 1):
            await produce(cluster, 30, partition)
        start, end = min(one, other), max(one, other)
        found = await read(cluster, {P0: start, P1: 0}, {P0: end, P1: count}, chunk)
        for name, wanted in ((P0, range(start, end)), (P1, range(count))):
            assert [record.offset for record in found if record.partition == name.partition] == list(wanted)

    simulated(story)


def test_offsets_without_a_record_before_the_end_do_not_hold_it_up() -> None:
    async def story(cluster: MemoryCluster) -> None:
        await produce(cluster, 3)
        cluster.log(P0).add_gap()
        consumer = cluster.consumer()
        await consumer.start()
        end = (await consumer.end_offsets([P0]))[P0]
        await consumer.stop()
        assert end == 4
        assert len(await read(cluster, {P0: 0}, {P0: end})) == 3

    simulated(story)


def test_a_log_that_gives_nothing_more_is_an_error() -> None:
    async def story(cluster: MemoryCluster) -> None:
        await produce(cluster, 3)
        with pytest.raises(BrokerUnavailableError, match=r"For 60 s nothing more came of t\[0\] from 3 up to 9"):
            await read(cluster, {P0: 0}, {P0: 9})

    simulated(story)


class Pausing(MemoryConsumer):
    """A consumer whose broker pauses once, ``for_s`` seconds from its first fetch on: its fetches bring nothing."""

    for_s = 20.0
    first_at: float | None = None
    wrong = 0
    """So many times a broker that paused says that there is nothing, as for a fetch whose time was over."""

    async def fetch(self, *, max_records, timeout_s, partitions=()):
        clock = self._broker.clock
        self.first_at = clock.monotonic() if self.first_at is None else self.first_at
        if clock.monotonic() < self.first_at + self.for_s:
            await clock.sleep(timeout_s)
            return {}
        return await super().fetch(max_records=max_records, timeout_s=timeout_s, partitions=partitions)

    async def holds_nothing(self, partition, offset, end):
        if self.wrong:
            self.wrong -= 1
            return True
        return await super().holds_nothing(partition, offset, end)


@pytest.mark.parametrize("wrong", [0, 1])
def test_a_broker_that_pauses_is_waited_for(wrong: int) -> None:
    async def story(cluster: MemoryCluster) -> None:
        await produce(cluster, 9)
        consumer = Pausing(cluster.node("reader"), group=None, member=None)
        consumer.wrong = wrong
        found = [record.offset async for records in read_ranges(consumer, {P0: 2}, {P0: 9}) for record in records]
        assert found == list(range(2, 9))
        assert not consumer.assignment()

    simulated(story)


def test_a_broker_that_pauses_for_too_long_is_an_error_that_can_be_tried_again() -> None:
    async def story(cluster: MemoryCluster) -> None:
        await produce(cluster, 9)
        consumer = Pausing(cluster.node("reader"), group=None, member=None)
        consumer.for_s = 3600.0
        with pytest.raises(BrokerUnavailableError, match=r"nothing more came of t\[0\] from 2 up to 9") as raised:
            _ = [records async for records in read_ranges(consumer, {P0: 2}, {P0: 9})]
        assert raised.value.retriable

    simulated(story)


class Standing(MemoryConsumer):
    """A consumer whose position stands still where nothing comes, as aiokafka's does at a log's compacted end."""

    async def fetch(self, *, max_records, timeout_s, partitions=()):
        before = dict(self._assigned)
        chunks = await super().fetch(max_records=max_records, timeout_s=timeout_s, partitions=partitions)
        self._assigned.update({name: at for name, at in before.items() if name not in chunks})
        return chunks


def test_a_range_whose_end_compaction_emptied_is_read_to_its_end() -> None:
    async def story(cluster: MemoryCluster) -> None:
        await produce(cluster, 3)
        cluster.log(P0).add_gap()
        consumer = Standing(cluster.node("reader"), group=None, member=None)
        found = [record.offset async for records in read_ranges(consumer, {P0: 0}, {P0: 4}) for record in records]
        assert found == [0, 1, 2]

    simulated(story)
