"""Records compressed by their producers in any of Kafka's ways."""

from __future__ import annotations

import pytest
from aiokafka import AIOKafkaProducer

from headrace.kafka.interface import TopicPartition
from tests.contract.kafka.helpers import read_from


@pytest.fixture
def backend() -> str:
    """Only there: the embedded broker decompresses what it stores."""
    return "apache"


@pytest.fixture(params=[False, True], ids=["records", "columns"])
def in_columns(request) -> bool:
    return request.param


@pytest.mark.apache
@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
async def test_records_are_read_however_their_producer_compressed_them(new_topic, consumer, apache_bootstrap, codec):
    topic = await new_topic()
    async with AIOKafkaProducer(bootstrap_servers=apache_bootstrap, compression_type=codec) as producer:
        for number in range(20):
            await producer.send_and_wait(topic, b"%d " % number * 100, partition=0, headers=[("h", b"v")])
    found = await read_from(consumer, TopicPartition(topic, 0), 0, 20)
    assert [record.value for record in found] == [b"%d " % number * 100 for number in range(20)]
    assert {tuple(record.headers) for record in found} == {(("h", b"v"),)}
