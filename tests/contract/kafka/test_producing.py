from __future__ import annotations

import asyncio
import time

import pytest
from aiokafka.conn import AIOKafkaConnection
from aiokafka.protocol.produce import ProduceRequest

from headrace.kafka.aio.producer import AioProducer, partition_of_key
from headrace.kafka.interface import Outgoing, ProducerDeadError, RecordTooLargeError, TopicPartition, UnknownTopicError
from headrace.worker.stages.batch import HAND_OVER_TURNS
from tests.contract.kafka.helpers import read_from
from tests.support.raw_batches import packed_records

GIVEN = pytest.mark.parametrize("given", [list, packed_records])


async def test_a_record_comes_back_as_it_was_sent(new_topic, producer, consumer):
    topic = await new_topic(partitions=2)
    sent = Outgoing(
        b"value", key=b"key", headers=[("a", b"1"), ("a", b"2"), ("none", None)], timestamp_ms=1_700_000_000_123
    )
    appended = await producer.send(topic, sent, partition=1)
    [record] = await read_from(consumer, TopicPartition(topic, 1), 0, 1)
    assert (appended.partition, appended.offset) == (record.partition, record.offset) == (1, 0)
    assert (record.topic, record.key, record.value, record.timestamp) == (topic, b"key", b"value", sent.timestamp_ms)
    assert [tuple(header) for header in record.headers] == sent.headers


async def test_a_tombstone_is_a_key_without_a_value(new_topic, producer, consumer):
    topic = await new_topic()
    await producer.send(topic, Outgoing(None, key=b"erased"))
    [record] = await read_from(consumer, TopicPartition(topic, 0), 0, 1)
    assert (record.key, record.value) == (b"erased", None)


async def test_a_record_of_nothing_but_headers_is_a_record(new_topic, producer, consumer):
    topic = await new_topic()
    await producer.send(topic, Outgoing(None, headers=[("why", b"empty")]))
    [record] = await read_from(consumer, TopicPartition(topic, 0), 0, 1)
    assert (record.key, record.value, [tuple(header) for header in record.headers]) == (None, None, [("why", b"empty")])


async def test_many_senders_at_once_each_learn_their_own_offset(new_topic, producer, consumer):
    topic = await new_topic()
    values = [f"{number}".encode() for number in range(200)]
    appended = await asyncio.gather(*(producer.send(topic, Outgoing(value, key=value)) for value in values))
    records = await read_from(consumer, TopicPartition(topic, 0), 0, 200)
    assert [records[place.offset].value for place in appended] == values


@pytest.mark.needs("max.message.bytes")
async def test_a_record_too_large_does_not_fail_those_sent_beside_it(new_topic, producer):
    topic = await new_topic(max_message_bytes="3000")
    records = [Outgoing(b"L" * 9000 if number == 3 else b"s" * 500) for number in range(8)]
    outcomes = await asyncio.gather(*(producer.send(topic, record) for record in records), return_exceptions=True)
    assert [number for number, outcome in enumerate(outcomes) if isinstance(outcome, RecordTooLargeError)] == [3]
    assert sorted(outcome.offset for number, outcome in enumerate(outcomes) if number != 3) == list(range(7))


async def test_a_record_without_a_timestamp_gets_the_clock_s(new_topic, producer, consumer):
    topic = await new_topic()
    before = time.time_ns() // 1_000_000
    await producer.send(topic, Outgoing(b"now"))
    [record] = await read_from(consumer, TopicPartition(topic, 0), 0, 1)
    assert before <= record.timestamp <= time.time_ns() // 1_000_000


@pytest.mark.needs("LogAppendTime")
async def test_the_broker_s_clock_stamps_where_the_topic_says_so(new_topic, producer, consumer):
    topic = await new_topic(message_timestamp_type="LogAppendTime")
    before = time.time_ns() // 1_000_000
    await producer.send(topic, Outgoing(b"late", timestamp_ms=1000))
    [record] = await read_from(consumer, TopicPartition(topic, 0), 0, 1)
    assert before <= record.timestamp <= time.time_ns() // 1_000_000


async def test_keys_find_their_partition_as_in_java_s_client(new_topic, producer):
    topic = await new_topic(partitions=5)
    keys = [f"key-{number}".encode() for number in range(20)]
    appended = await producer.send_many(topic, [Outgoing(b"v", key=key) for key in keys])
    assert [place.partition for place in appended] == [partition_of_key(key, 5) for key in keys]
    assert (await producer.send(topic, Outgoing(b"v", key=keys[0]))).partition == appended[0].partition


async def test_records_without_a_key_are_spread_over_the_partitions(new_topic, producer):
    topic = await new_topic(partitions=3)
    appended = await producer.send_many(topic, [Outgoing(b"v") for _ in range(30)])
    assert {place.partition for place in appended} == {0, 1, 2}


async def test_send_many_returns_places_in_the_order_given(new_topic, producer, consumer):
    topic = await new_topic(partitions=3)
    values = [f"{number}".encode() for number in range(50)]
    appended = await producer.send_many(topic, [Outgoing(value, key=value) for value in values])
    for value, place in zip(values, appended, strict=True):
        [record] = await read_from(consumer, TopicPartition(topic, place.partition), place.offset, 1)
        assert record.value == value


async def test_two_producers_in_one_partition_each_learn_their_own_places(new_topic, cluster, producer, consumer):
    topic = await new_topic()
    other = cluster.producer()
    await other.start()
    # Each two megabytes, so that a real client needs several of its batches, and those of the two mix.
    values = [[f"{who}{number:04}".encode() * 400 for number in range(1000)] for who in "ab"]
    try:
        both = await asyncio.gather(
            *(
                sender.send_in_order(topic, 0, [Outgoing(value) for value in of_sender])
                for sender, of_sender in zip((producer, other), values, strict=True)
            )
        )
    finally:
        await other.stop()
    records = await read_from(consumer, TopicPartition(topic, 0), 0, 2000)
    at = {record.offset: record.value for record in records}
    for offsets, of_sender in zip(both, values, strict=True):
        assert [at[offset] for offset in offsets] == of_sender


@GIVEN
async def test_a_batch_lies_in_one_partition_without_a_gap_and_in_order(new_topic, producer, consumer, given):
    topic = await new_topic(partitions=2)
    await producer.send(topic, Outgoing(b"before"), partition=1)
    # Two megabytes, so that a real client needs several of its batches.
    values = [f"{number:04}".encode() * 500 for number in range(1000)]
    first = await producer.send_batch(topic, 1, given([Outgoing(value) for value in values]))
    assert (first.partition, first.offset) == (1, 1)
    records = await read_from(consumer, TopicPartition(topic, 1), 1, len(values))
    assert [record.offset for record in records] == list(range(1, 1001))
    assert [record.value for record in records] == values


async def test_an_empty_batch_is_the_caller_s_mistake(new_topic, producer):
    topic = await new_topic()
    with pytest.raises(ValueError, match="no records"):
        await producer.send_batch(topic, 0, [])


@GIVEN
async def test_a_record_larger_than_a_batch_goes_alone(new_topic, producer, consumer, given):
    topic = await new_topic(max_message_bytes="2097152")
    large = b"L" * 1_500_000
    await producer.send_batch(topic, 0, given([Outgoing(b"s"), Outgoing(large), Outgoing(b"t")]))
    records = await read_from(consumer, TopicPartition(topic, 0), 0, 3)
    assert [len(record.value) for record in records] == [1, len(large), 1]


async def test_a_record_larger_than_any_request_is_named(new_topic, producer):
    topic = await new_topic()
    with pytest.raises(RecordTooLargeError) as raised:
        await producer.send_many(topic, [Outgoing(b"s"), Outgoing(b"L" * 5_000_000), Outgoing(b"t")])
    assert raised.value.index == 1


@pytest.mark.needs("max.message.bytes")
@GIVEN
async def test_a_record_too_large_is_named_and_leaves_no_gap(new_topic, producer, consumer, given):
    topic = await new_topic(max_message_bytes="3000")
    records = [Outgoing(b"s" * 900) for _ in range(6)]
    records[4] = Outgoing(b"L" * 9000)
    with pytest.raises(RecordTooLargeError) as raised:
        await producer.send_batch(topic, 0, given(records))
    assert raised.value.index == 4
    after = await producer.send(topic, Outgoing(b"after"))
    found = await read_from(consumer, TopicPartition(topic, 0), 0, after.offset + 1)
    # Some prefix of what stood before the culprit, then what was sent later: nothing from behind it.
    assert [record.value for record in found] == [b"s" * 900] * after.offset + [b"after"]
    assert after.offset <= 4


@GIVEN
async def test_batches_are_made_smaller_where_a_topic_takes_little(new_topic, producer, consumer, given):
    topic = await new_topic(max_message_bytes="3000")
    values = [f"{number:02}".encode() * 400 for number in range(10)]
    first = await producer.send_batch(topic, 0, given([Outgoing(value) for value in values]))
    assert first.offset == 0
    records = await read_from(consumer, TopicPartition(topic, 0), 0, 10)
    assert [record.value for record in records] == values


async def test_packed_records_come_back_as_they_were_packed(new_topic, producer, consumer):
    topic = await new_topic()
    sent = [
        Outgoing(b"value", b"key", (("a", b"1"), ("a", None))),
        Outgoing(b"", None),
        Outgoing(None, b""),
        Outgoing(b"v" * 9000, b"k" * 9000, (("n" * 300, b""),)),
    ]
    before = time.time_ns() // 1_000_000
    await producer.send_batch(topic, 0, packed_records(sent, batch_bytes=200))
    after = time.time_ns() // 1_000_000
    records = await read_from(consumer, TopicPartition(topic, 0), 0, len(sent))
    assert [Outgoing(record.value, record.key, tuple(map(tuple, record.headers))) for record in records] == sent
    assert all(before <= record.timestamp <= after for record in records)


async def test_an_unknown_topic_or_partition_is_an_error_and_not_a_new_topic(new_topic, producer, name):
    with pytest.raises(UnknownTopicError, match=name):
        await producer.send(name, Outgoing(b"v", key=b"k"))
    assert await producer.partitions_of(name) == frozenset()
    topic = await new_topic(partitions=2)
    assert await producer.partitions_of(topic) == {0, 1}
    with pytest.raises(UnknownTopicError):
        await producer.send(topic, Outgoing(b"v"), partition=2)


@pytest.mark.needs("idempotent producer")
async def test_a_producer_can_be_idempotent(new_topic, cluster):
    topic = await new_topic()
    producer = cluster.producer()
    await producer.start()
    assert (await producer.send(topic, Outgoing(b"v"), partition=0)).offset == 0
    await producer.stop()


async def test_a_stopped_producer_says_so(new_topic, cluster):
    topic = await new_topic()
    producer = cluster.producer()
    await producer.start()
    await producer.stop()
    with pytest.raises(ProducerDeadError):
        await producer.send(topic, Outgoing(b"v"), partition=0)


async def test_a_batch_is_on_its_connection_before_a_worker_computes_the_next(new_topic, producer, monkeypatch):
    """A worker computes on the event loop, so what is not written by then waits for a whole batch."""
    topic = await new_topic(partitions=2)
    written = []
    send = AIOKafkaConnection.send

    def counted(connection, request, *args, **options):
        if isinstance(request, ProduceRequest):
            written.append(request)
        return send(connection, request, *args, **options)

    if not isinstance(producer, AioProducer):
        pytest.skip("the twin has no connection")
    for partition in (0, 1):
        await producer.send_batch(topic, partition, [Outgoing(value=b"before")])
    monkeypatch.setattr(AIOKafkaConnection, "send", counted)
    slices = [asyncio.create_task(producer.send_batch(topic, number, [Outgoing(value=b"x")])) for number in (0, 1)]
    for _ in range(HAND_OVER_TURNS):
        await asyncio.sleep(0)
    assert len(written) == 1, "one request holds the slices of both partitions"
    await asyncio.gather(*slices)
