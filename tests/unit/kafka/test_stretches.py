"""Reading stretches of a log on the twin: no record before, none behind, and an end in any case."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.kafka.errors import BrokerUnavailableError
from headrace.kafka.interface import Record, TopicPartition
from headrace.kafka.memory import MemoryCluster
from headrace.kafka.stretches import read_stretches
from tests.support.twin import P0, produce, simulated

P1 = TopicPartition("t", 1)


async def read(
    cluster: MemoryCluster, starts: dict[TopicPartition, int], ends: dict[TopicPartition, int], chunk: int = 7
) -> list[Record]:
    consumer = cluster.consumer()
    await consumer.start()
    try:
        found: list[Record] = []
        async for records in read_stretches(consumer, starts, ends, chunk=chunk):
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
        cluster.add_gap(P0)
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
