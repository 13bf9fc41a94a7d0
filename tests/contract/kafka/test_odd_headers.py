"""Headers that Kafka stores and aiokafka can't unpack, on real Apache Kafka."""

from __future__ import annotations

import pytest

from headrace.kafka.aio import AioKafkaCluster
from headrace.kafka.interface import Outgoing, TopicPartition
from headrace.kafka.settings import KafkaSettings
from tests.contract.kafka.helpers import read, read_from
from tests.support.raw_batches import GZIP, raw_batch, raw_record, send_raw

ODD = (b"\xff\xfe", b"v")


@pytest.fixture
def backend() -> str:
    """Only there: the embedded broker takes no such record."""
    return "apache"


@pytest.fixture(params=[False, True], ids=["records", "columns"])
def in_columns(request) -> bool:
    return request.param


@pytest.mark.apache
@pytest.mark.parametrize("codec", [0, GZIP])
async def test_a_header_whose_name_is_no_text_hides_neither_its_record_nor_those_around_it(
    new_topic, producer, consumer, apache_bootstrap, codec
):
    topic = await new_topic(partitions=2)
    odd, even = TopicPartition(topic, 0), TopicPartition(topic, 1)
    await producer.send_batch(topic, 0, [Outgoing(b"0"), Outgoing(b"1")])
    records = [
        raw_record(0, b"2", key=b"k"),
        raw_record(1, b"3", headers=(ODD, (b"tenant", b"a"), ("größe".encode(), None))),
        raw_record(2, None, headers=(ODD,)),
    ]
    await send_raw(apache_bootstrap, topic, 0, raw_batch(records, codec=codec), 3)
    await producer.send_batch(topic, 0, [Outgoing(b"5")])
    await producer.send_batch(topic, 1, [Outgoing(b"even")] * 6)
    consumer.assign([odd, even])
    for partition in (odd, even):
        consumer.seek(partition, 0)
    found = sorted(await read(consumer, 12), key=lambda record: (record.partition, record.offset))
    assert [(record.offset, record.value) for record in found[:6]] == [
        (0, b"0"), (1, b"1"), (2, b"2"), (3, b"3"), (4, None), (5, b"5"),
    ]  # fmt: skip
    assert [record.value for record in found[6:]] == [b"even"] * 6
    assert found[2].key == b"k"
    assert tuple(found[3].headers) == (("\\xff\\xfe", b"v"), ("tenant", b"a"), ("größe", None))
    assert all(abs(record.timestamp - found[0].timestamp) < 60_000 for record in found)
    again = await read_from(consumer, odd, 4, 2)
    assert [(record.offset, record.value) for record in again] == [(4, None), (5, b"5")]


@pytest.mark.apache
async def test_a_thousand_headers_that_are_no_text_are_read_no_more_at_once_than_was_asked_for(
    new_topic, consumer, apache_bootstrap
):
    topic = await new_topic()
    batch = raw_batch([raw_record(number, b"%d" % number, headers=(ODD,)) for number in range(1000)])
    await send_raw(apache_bootstrap, topic, 0, batch, 1000)
    partition = TopicPartition(topic, 0)
    consumer.assign([partition])
    consumer.seek(partition, 0)
    found = []
    while len(found) < 1000:
        chunk = (await consumer.fetch(max_records=300, timeout_s=1.0)).get(partition, ())
        assert len(chunk) <= 300
        found += chunk
    assert [record.offset for record in found] == list(range(1000))


@pytest.mark.apache
async def test_such_a_header_does_not_stop_a_member_of_a_group_that_waits_for_more(apache_bootstrap, new_topic):
    topic = await new_topic()
    cluster = AioKafkaCluster(KafkaSettings(bootstrap=apache_bootstrap))
    consumer = cluster.consumer(group=f"{topic}-readers")
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, 0)])
        consumer.seek(TopicPartition(topic, 0), 0)
        assert not await consumer.fetch(max_records=10, timeout_s=0.1)
        await send_raw(apache_bootstrap, topic, 0, raw_batch([raw_record(0, b"odd", headers=(ODD,))]), 1)
        assert [record.value for record in await read(consumer, 1)] == [b"odd"]
    finally:
        await consumer.stop()
