from __future__ import annotations

import asyncio
from io import BytesIO

import pytest
from aiokafka.partitioner import DefaultPartitioner
from hypothesis import given
from hypothesis import strategies as st

from headrace.client import KafkaError, Published
from headrace_load.measure import producer as producer_module
from headrace_load.measure.producer import CHUNK, MOST_BYTES, MOST_CHUNKS, MOST_RECORDS, PartitionQueues, RequestBuffer
from headrace_load.workload.requests import Planned
from tests.support.waiting import until

BEGIN_US = 1_000_000
PARTITIONS = 4


def planned(number, due_s=0.0, value=b"text", key=None, good=True):
    return Planned(number=number, due_s=due_s, value=value, key=key, headers=(), good=good)


@given(st.lists(st.floats(0, 10), max_size=60), st.lists(st.tuples(st.floats(0, 10), st.integers(1, 30)), max_size=8))
def test_requests_made_ahead_are_taken_once_in_order_when_they_are_due(due, takes):
    wanted = sorted(due)
    buffer = RequestBuffer(planned(number, due_s) for number, due_s in enumerate(wanted))
    buffer.start()
    taken = []
    for now_s, most in sorted(takes):
        ready = [number for number, due_s in enumerate(wanted) if due_s <= now_s and number >= len(taken)]
        assert buffer.waiting(now_s) == len(ready)
        got = [request.number for request in buffer.take(now_s, most)]
        assert got == ready[:most]
        taken += got
    taken += [request.number for request in buffer.take(10.0, 100)]
    assert taken == list(range(len(wanted)))
    assert buffer.exhausted
    assert buffer.next_due_s() is None
    buffer.stop()


def test_no_more_is_made_ahead_than_there_is_room_for():
    made = []

    def requests():
        for number in range((MOST_CHUNKS + 5) * CHUNK):
            made.append(number)
            yield planned(number)

    buffer = RequestBuffer(requests())
    buffer.start()
    assert len(made) <= (MOST_CHUNKS + 1) * CHUNK
    assert buffer.waiting(1.0) == MOST_CHUNKS * CHUNK
    buffer.stop()


def test_what_goes_wrong_while_requests_are_made_is_raised_where_they_are_taken():
    def requests():
        yield planned(0)
        raise ValueError("a text that no request can hold")

    buffer = RequestBuffer(requests())
    buffer.start()
    with pytest.raises(ValueError, match="no request can hold"):
        buffer.exhausted  # noqa: B018
    buffer.stop()


class SlowBroker:
    """Takes one batch a partition at a time, and acknowledges when it is told to."""

    def __init__(self):
        self.batches = [[] for _ in range(PARTITIONS)]
        self.under_way = [0] * PARTITIONS
        self.open = asyncio.Event()
        self.failing = False

    async def publish_many(self, records, *, partition):
        self.under_way[partition] += 1
        assert self.under_way[partition] == 1
        try:
            await self.open.wait()
            if self.failing:
                raise KafkaError("no leader")
        finally:
            self.under_way[partition] -= 1
        first = sum(map(len, self.batches[partition]))
        self.batches[partition].append(records)
        return [Published(partition, first + index, 7) for index in range(len(records))]


async def test_what_is_sent_while_a_batch_is_under_way_goes_together_behind_it():
    broker = SlowBroker()
    queues = PartitionQueues(broker, PARTITIONS, BEGIN_US)
    for number in range(12):
        queues.send([planned(number, due_s=number / 1000, good=number != 5)], now_us=BEGIN_US + number * 1000 + 7)
        await asyncio.sleep(0)
    assert queues.sent == 12
    assert not queues.empty
    broker.open.set()
    await until(lambda: queues.empty)
    await queues.stop()
    assert [list(map(len, batches)) for batches in broker.batches] == [[1, 2]] * PARTITIONS
    rows = queues.rows.flush(BytesIO())
    rows.sort(order="number")
    assert rows["number"].tolist() == list(range(12))
    assert rows["due_us"].tolist() == [BEGIN_US + number * 1000 for number in range(12)]
    assert (rows["sent_us"] - rows["due_us"]).tolist() == [7] * 12
    assert rows["good"].tolist() == [number != 5 for number in range(12)]
    assert rows["offset"].tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert (rows["acked_us"] > 0).all()
    timestamps = [record.timestamp_ms for batches in broker.batches for batch in batches for record in batch]
    assert sorted(timestamps) == [(BEGIN_US + number * 1000 + 7) // 1000 for number in range(12)]


async def test_keyed_requests_go_where_kafkas_own_partitioner_puts_them():
    broker = SlowBroker()
    broker.open.set()
    queues = PartitionQueues(broker, PARTITIONS, BEGIN_US)
    keys = [b"key-%d" % number for number in range(40)]
    queues.send([planned(number, key=key) for number, key in enumerate(keys)], now_us=BEGIN_US)
    await until(lambda: queues.empty)
    await queues.stop()
    partitioner = DefaultPartitioner()
    numbers = list(range(PARTITIONS))
    for partition, batches in enumerate(broker.batches):
        for record in (record for batch in batches for record in batch):
            assert partitioner(record.key, numbers, numbers) == partition


async def test_a_batch_stays_below_the_clients_own_bounds():
    broker = SlowBroker()
    queues = PartitionQueues(broker, PARTITIONS, BEGIN_US)
    many = [planned(number) for number in range(5 * MOST_RECORDS)]
    large = [planned(len(many) + number, value=b"x" * (MOST_BYTES // 3)) for number in range(20)]
    queues.send(many + large, now_us=BEGIN_US)
    broker.open.set()
    await until(lambda: queues.empty)
    await queues.stop()
    batches = [batch for of_partition in broker.batches for batch in of_partition]
    assert sum(map(len, batches)) == len(many) + len(large)
    assert max(map(len, batches)) <= MOST_RECORDS
    assert max(sum(len(record.value) for record in batch) for batch in batches) <= MOST_BYTES


async def test_there_is_no_room_when_too_much_is_under_way(monkeypatch):
    monkeypatch.setattr(producer_module, "ALL_RECORDS", 10)
    broker = SlowBroker()
    queues = PartitionQueues(broker, PARTITIONS, BEGIN_US)
    queues.send([planned(number) for number in range(9)], now_us=BEGIN_US)
    assert queues.room
    queues.send([planned(9)], now_us=BEGIN_US)
    assert not queues.room
    broker.open.set()
    await until(lambda: queues.room)
    await queues.stop()


async def test_what_kafka_refuses_and_what_is_given_up_counts_as_not_acknowledged():
    broker = SlowBroker()
    broker.failing = True
    queues = PartitionQueues(broker, 1, BEGIN_US)
    queues.send([planned(0), planned(1)], now_us=BEGIN_US)
    broker.open.set()
    await until(lambda: queues.empty)
    assert (queues.failed, queues.error) == (2, "no leader")
    broker.open.clear()
    queues.send([planned(2)], now_us=BEGIN_US)
    await until(lambda: broker.under_way[0])
    queues.send([planned(3)], now_us=BEGIN_US)
    await queues.stop()
    rows = queues.rows.flush(BytesIO())
    assert rows["number"].tolist() == [0, 1, 2, 3]
    assert rows["offset"].tolist() == rows["acked_us"].tolist() == [-1] * 4
    assert queues.failed == 4
