"""Three nodes of Apache Kafka: what is acknowledged outlives a node."""

from __future__ import annotations

import asyncio

import pytest

from headrace.kafka.aio import AioKafkaCluster
from headrace.kafka.brokers import apache_broker
from headrace.kafka.interface import BrokerUnavailableError, Outgoing, TopicPartition, TopicSpec
from headrace.kafka.settings import KafkaSettings
from tests.contract.kafka.helpers import read_from
from tests.support.waiting import within

pytestmark = [pytest.mark.apache, pytest.mark.slow]


async def test_acknowledged_records_outlive_a_node_and_two_lost_nodes_stop_acknowledging():
    async with apache_broker(3) as brokers:
        cluster = AioKafkaCluster(KafkaSettings(bootstrap=brokers.bootstrap))
        admin, producer, consumer = cluster.admin(), cluster.producer(), cluster.consumer()
        for client in (admin, producer, consumer):
            await client.start()
        assert await admin.broker_count() == 3
        spec = TopicSpec(name="kept", partitions=3, replication=3, config={"min.insync.replicas": "2"})
        await admin.create_topic(spec)
        for partition in range(3):
            await producer.send_batch("kept", partition, [Outgoing(b"before")] * 5)
        brokers.kill(0)
        for partition in range(3):
            await producer.send_batch("kept", partition, [Outgoing(b"after")] * 5)
        for partition in range(3):
            records = await read_from(consumer, TopicPartition("kept", partition), 0, 10)
            assert [record.value for record in records] == [b"before"] * 5 + [b"after"] * 5
        await brokers.start(0)
        await brokers.stop(1)
        await brokers.start(1)
        async with within(60, "the return of the stopped node"):
            while await admin.broker_count() < 3:  # noqa: ASYNC110 - brokers offer nothing to await
                await asyncio.sleep(0.1)
        impatient = AioKafkaCluster(KafkaSettings(bootstrap=brokers.bootstrap, delivery_timeout_ms=3000)).producer()
        await impatient.start()
        assert await impatient.partitions_of("kept") == {0, 1, 2}
        brokers.pause(1)
        brokers.pause(2)
        sending = [impatient.send("kept", Outgoing(b"lost?"), partition=number) for number in range(3)]
        outcomes = await asyncio.gather(*sending, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [BrokerUnavailableError] * 3
        await impatient.stop()
        brokers.resume(1)
        brokers.resume(2)
        for client in (producer, consumer, admin):
            await client.stop()
