from __future__ import annotations

import asyncio

import pytest

from headrace.kafka.aio import fetch_plan
from headrace.kafka.interface import (
    ConsumerDeadError,
    KafkaError,
    OffsetOutOfRangeError,
    Outgoing,
    RebalancedError,
    TopicPartition,
    UnknownTopicError,
)
from tests.contract.kafka.helpers import read, read_from
from tests.support.waiting import within


async def filled(new_topic, producer, count: int, partitions: int = 1) -> str:
    topic = await new_topic(partitions=partitions)
    for partition in range(partitions):
        records = [Outgoing(f"{number}".encode(), timestamp_ms=1_000_000 + number) for number in range(count)]
        await producer.send_batch(topic, partition, records)
    return topic


async def test_reading_begins_where_seek_says_forward_and_back(new_topic, producer, consumer):
    topic = await filled(new_topic, producer, 20)
    partition = TopicPartition(topic, 0)
    assert [record.offset for record in await read_from(consumer, partition, 15, 5)] == [15, 16, 17, 18, 19]
    assert await consumer.position(partition) == 20
    consumer.seek(partition, 3)
    assert await consumer.position(partition) == 3
    assert [record.offset for record in await read(consumer, 4)] == [3, 4, 5, 6]


async def test_positions_of_many_partitions_are_told_at_once(new_topic, producer, consumer):
    topic = await filled(new_topic, producer, 3, partitions=3)
    zero, one, two = (TopicPartition(topic, number) for number in range(3))
    assert await consumer.positions([]) == {}
    consumer.assign([zero, one])
    consumer.seek(zero, 0)
    with pytest.raises(KafkaError, match="seek"):
        await consumer.positions([zero, one])
    consumer.seek(one, 2)
    assert await consumer.positions([zero, one]) == {zero: 0, one: 2}
    await read(consumer, 4)
    assert await consumer.positions([one, zero]) == {zero: 3, one: 3}
    with pytest.raises(RebalancedError):
        await consumer.positions([zero, two])


async def test_a_partition_that_nobody_sought_gives_nothing(new_topic, producer, consumer):
    topic = await filled(new_topic, producer, 3, partitions=2)
    first, second = TopicPartition(topic, 0), TopicPartition(topic, 1)
    consumer.assign([first, second])
    assert not await consumer.fetch(max_records=10, timeout_s=0.2)
    with pytest.raises(KafkaError, match="seek"):
        await consumer.position(second)
    consumer.seek(first, 0)
    assert {record.partition for record in await read(consumer, 3)} == {0}
    consumer.seek(second, 0)
    assert {record.partition for record in await read(consumer, 3)} == {1}


async def test_a_fetch_takes_no_more_than_it_may(new_topic, producer, consumer):
    topic = await filled(new_topic, producer, 30, partitions=2)
    consumer.assign([TopicPartition(topic, 0), TopicPartition(topic, 1)])
    for partition in consumer.assignment():
        consumer.seek(partition, 0)
    seen: dict[int, list[int]] = {0: [], 1: []}
    async with within(20, "the fetch of all records"):
        while sum(map(len, seen.values())) < 60:
            chunks = await consumer.fetch(max_records=7, timeout_s=1.0)
            assert sum(map(len, chunks.values())) <= 7
            for partition, records in chunks.items():
                seen[partition.partition] += [record.offset for record in records]
    assert seen == {0: list(range(30)), 1: list(range(30))}


async def test_a_fetch_can_be_for_some_partitions_only(new_topic, producer, consumer):
    topic = await filled(new_topic, producer, 2, partitions=2)
    first, second = TopicPartition(topic, 0), TopicPartition(topic, 1)
    consumer.assign([first, second])
    consumer.seek(first, 0)
    consumer.seek(second, 0)
    found = {}
    async with within(20, "a fetch of one partition alone"):
        while not found:
            found = await consumer.fetch(max_records=10, timeout_s=0.5, partitions=[second])
    assert set(found) == {second}
    assert {record.partition for record in await read(consumer, 2)} == {0}


async def test_partitions_that_fall_quiet_and_wake_give_each_record_once(new_topic, producer, consumer, monkeypatch):
    monkeypatch.setattr(fetch_plan, "QUIET_S", 0.5)
    topic = await new_topic(partitions=2 * fetch_plan.MANY)
    partitions = [TopicPartition(topic, number) for number in range(2 * fetch_plan.MANY)]
    consumer.assign(partitions)
    for partition in partitions:
        consumer.seek(partition, 0)
    published: dict[TopicPartition, list[int]] = {}
    seen: dict[TopicPartition, list[int]] = {}
    for turn in range(8):
        # One is always busy, others wake, and some of them in two turns that follow each other.
        for number in {0, 5 * turn + 1, 5 * (turn // 2) + 2}:
            place = await producer.send(topic, Outgoing(b"x"), partition=number)
            published.setdefault(partitions[number], []).append(place.offset)
        async with within(30, "the records of a turn"):
            while seen != published:
                for partition, records in (await consumer.fetch(max_records=100, timeout_s=1.0)).items():
                    seen.setdefault(partition, []).extend(record.offset for record in records)
                assert all(seen[partition] == published[partition][: len(seen[partition])] for partition in seen)
        assert not await consumer.fetch(max_records=100, timeout_s=0.7 if turn % 2 else 0.1)


async def test_a_waiting_fetch_is_woken_by_a_record(new_topic, producer, consumer):
    topic = await new_topic()
    partition = TopicPartition(topic, 0)
    consumer.assign([partition])
    consumer.seek(partition, 0)
    waiting = asyncio.create_task(consumer.fetch(max_records=1, timeout_s=15.0))
    await producer.send(topic, Outgoing(b"wake"), partition=0)
    found = await waiting
    assert [record.value for record in found[partition]] == [b"wake"]


async def test_a_paused_partition_gives_nothing_and_loses_nothing(new_topic, producer, consumer):
    topic = await filled(new_topic, producer, 5)
    partition = TopicPartition(topic, 0)
    assert len(await read_from(consumer, partition, 0, 2)) == 2
    consumer.pause([partition])
    assert not await consumer.fetch(max_records=10, timeout_s=0.2)
    consumer.resume([partition])
    assert [record.offset for record in await read(consumer, 3)] == [2, 3, 4]


@pytest.mark.parametrize("read_committed", [False, True])
async def test_offsets_at_both_ends(new_topic, producer, cluster, read_committed):
    topic = await filled(new_topic, producer, 4, partitions=2)
    partitions = [TopicPartition(topic, 0), TopicPartition(topic, 1)]
    consumer = cluster.consumer(read_committed=read_committed)
    await consumer.start()
    assert await consumer.beginning_offsets(partitions) == dict.fromkeys(partitions, 0)
    assert await consumer.end_offsets(partitions) == dict.fromkeys(partitions, 4)
    await consumer.stop()


@pytest.mark.needs("exact offsets by time")
async def test_offsets_by_time(new_topic, producer, consumer):
    topic = await filled(new_topic, producer, 10)
    partition = TopicPartition(topic, 0)
    assert await consumer.offsets_for_times({partition: 1_000_004}) == {partition: 4}
    assert await consumer.offsets_for_times({partition: 5}) == {partition: 0}
    assert await consumer.offsets_for_times({partition: 9_000_000}) == {partition: None}


@pytest.mark.needs("OffsetOutOfRange")
async def test_a_position_beyond_the_end_is_an_error_that_names_it(new_topic, producer, consumer):
    topic = await filled(new_topic, producer, 10)
    partition = TopicPartition(topic, 0)
    consumer.assign([partition])
    consumer.seek(partition, 11)
    with pytest.raises(OffsetOutOfRangeError) as raised:
        await consumer.fetch(max_records=1, timeout_s=3.0)
    assert raised.value.positions == {(topic, 0): 11}
    consumer.seek(partition, 9)
    assert [record.offset for record in await read(consumer, 1)] == [9]


async def test_the_end_itself_is_a_position_to_wait_at(new_topic, producer, consumer):
    topic = await filled(new_topic, producer, 2)
    partition = TopicPartition(topic, 0)
    consumer.assign([partition])
    consumer.seek(partition, 2)
    assert not await consumer.fetch(max_records=1, timeout_s=0.3)
    await producer.send(topic, Outgoing(b"next"), partition=0)
    assert [record.value for record in await read(consumer, 1)] == [b"next"]


async def test_unknown_partitions_are_an_error_and_soon(new_topic, consumer, name):
    with pytest.raises(UnknownTopicError, match=name):
        await consumer.end_offsets([TopicPartition(name, 0)])
    topic = await new_topic()
    assert await consumer.partitions_of(topic) == {0}
    with pytest.raises(UnknownTopicError):
        await consumer.beginning_offsets([TopicPartition(topic, 7)])


async def test_seeking_what_is_not_assigned_is_an_error(new_topic, consumer):
    topic = await new_topic(partitions=2)
    consumer.assign([TopicPartition(topic, 0)])
    with pytest.raises(RebalancedError):
        consumer.seek(TopicPartition(topic, 1), 0)


async def test_a_stopped_consumer_says_so(new_topic, cluster):
    topic = await new_topic()
    consumer = cluster.consumer()
    await consumer.start()
    consumer.assign([TopicPartition(topic, 0)])
    consumer.seek(TopicPartition(topic, 0), 0)
    await consumer.stop()
    with pytest.raises(ConsumerDeadError):
        await consumer.fetch(max_records=1, timeout_s=0.1)


async def test_whether_a_range_holds_nothing_is_asked_of_the_broker(new_topic, producer, consumer):
    topic = await filled(new_topic, producer, 3)
    partition = TopicPartition(topic, 0)
    await read_from(consumer, partition, 0, 3)
    assert not await consumer.holds_nothing(partition, 0, 3)
    assert not await consumer.holds_nothing(partition, 2, 3)
    assert await consumer.holds_nothing(partition, 3, 3)
    # A log that does not reach so far says nothing of what will stand there.
    assert not await consumer.holds_nothing(partition, 3, 4)
