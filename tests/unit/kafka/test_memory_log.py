"""What the twin's logs do when they are cut or have holes."""

from __future__ import annotations

import pytest

from headrace.kafka.interface import OffsetOutOfRangeError
from tests.support.memory_kafka import MemoryCluster
from tests.support.twin import P0, produce, simulated


def test_retention_and_lost_tails_put_positions_outside_the_log():
    async def story(cluster: MemoryCluster) -> None:
        await produce(cluster, 10)
        consumer = cluster.consumer()
        consumer.assign([P0])
        consumer.seek(P0, 2)
        cluster.log(P0).truncate_before(5)
        with pytest.raises(OffsetOutOfRangeError) as raised:
            await consumer.fetch(max_records=1, timeout_s=1.0)
        assert raised.value.positions == {P0: 2}
        assert await consumer.beginning_offsets([P0]) == {P0: 5}
        consumer.seek(P0, 9)
        cluster.log(P0).drop_tail(7)
        with pytest.raises(OffsetOutOfRangeError):
            await consumer.fetch(max_records=1, timeout_s=1.0)
        cluster.recreate("t")
        assert await consumer.end_offsets([P0]) == {P0: 0}

    simulated(story)


def test_holes_in_a_log_are_stepped_over():
    async def story(cluster: MemoryCluster) -> None:
        await produce(cluster, 3)
        cluster.log(P0).add_gap()
        await produce(cluster, 1)
        cluster.log(P0).remove(1)
        cluster.log(P0).add_gap()
        consumer = cluster.consumer()
        consumer.assign([P0])
        consumer.seek(P0, 0)
        fetched = await consumer.fetch(max_records=10, timeout_s=1.0)
        assert [record.offset for record in fetched[P0]] == [0, 2, 4]
        assert not await consumer.fetch(max_records=10, timeout_s=1.0)
        assert await consumer.position(P0) == 6

    simulated(story)
