"""What only a real client has: idempotence, a sequence that must not wrap, an end that does not hang."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from headrace.kafka.aio import AioKafkaCluster
from headrace.kafka.aio import producer as aio_connection
from headrace.kafka.brokers import embedded_broker, embedded_settings
from headrace.kafka.interface import BrokerUnavailableError, Outgoing, TopicPartition, TopicSpec, UnsupportedError
from headrace.kafka.settings import KafkaSettings
from headrace.process.ports import free_ports
from tests.contract.kafka.helpers import read_from
from tests.support.waiting import within


async def test_a_broker_that_refuses_idempotence_says_what_to_set(embedded_bootstrap):
    producer = AioKafkaCluster(KafkaSettings(bootstrap=embedded_bootstrap, request_timeout_ms=11_000)).producer()
    with pytest.raises(UnsupportedError, match=r"kafka\.idempotent"):
        await producer.start()


async def test_where_no_broker_listens_every_client_says_so(name):
    address = f"127.0.0.1:{free_ports(1)[0]}"
    cluster = AioKafkaCluster(KafkaSettings(bootstrap=address))
    for client in (cluster.consumer(group=name), cluster.producer(), cluster.admin()):
        with pytest.raises(BrokerUnavailableError, match=address):
            await client.start()


async def test_every_client_connects_though_the_first_addresses_hang(embedded_bootstrap, name, monkeypatch):
    monkeypatch.setattr("aiokafka.conn.random.shuffle", lambda hosts: None)
    hanging = [await asyncio.start_server(lambda *_: asyncio.Future(), "127.0.0.1", 0) for _ in range(2)]
    addresses = [f"127.0.0.1:{server.sockets[0].getsockname()[1]}" for server in hanging]
    cluster = AioKafkaCluster(
        KafkaSettings(
            bootstrap=",".join((*addresses, embedded_bootstrap)),
            request_timeout_ms=600,
            rebalance_timeout_ms=500,
            heartbeat_interval_ms=100,
            idempotent=False,
        )
    )
    for client in (cluster.consumer(group=name), cluster.producer(), cluster.admin()):
        await client.start()
        await client.stop()
    for server in hanging:
        server.close()


@pytest.mark.apache
async def test_a_producer_is_made_anew_before_its_sequence_numbers_wrap(apache_bootstrap, name, monkeypatch):
    monkeypatch.setattr(aio_connection, "SEQUENCE_LIMIT", 100)
    cluster = AioKafkaCluster(KafkaSettings(bootstrap=apache_bootstrap))
    admin, producer, consumer = cluster.admin(), cluster.producer(), cluster.consumer()
    for client in (admin, producer, consumer):
        await client.start()
    await admin.create_topic(TopicSpec(name=name, partitions=1))
    connections = set()
    for batch in range(10):
        await producer.send_batch(name, 0, [Outgoing(f"{batch * 30 + number}".encode()) for number in range(30)])
        connections.add(id(producer._connection))
    records = await read_from(consumer, TopicPartition(name, 0), 0, 300)
    assert [int(record.value) for record in records] == list(range(300))
    assert len(connections) >= 2
    for client in (producer, consumer, admin):
        await client.stop()


@pytest.mark.apache
async def test_many_partitions_can_be_written_at_once_while_the_producer_is_made_anew(
    apache_bootstrap, name, monkeypatch
):
    monkeypatch.setattr(aio_connection, "SEQUENCE_LIMIT", 20)
    cluster = AioKafkaCluster(KafkaSettings(bootstrap=apache_bootstrap))
    admin, producer, consumer = cluster.admin(), cluster.producer(), cluster.consumer()
    for client in (admin, producer, consumer):
        await client.start()
    await admin.create_topic(TopicSpec(name=name, partitions=4))

    async def write(partition: int) -> None:
        for batch in range(12):
            await producer.send_batch(
                name, partition, [Outgoing(f"{batch * 5 + number}".encode()) for number in range(5)]
            )

    await asyncio.gather(*map(write, range(4)))
    for partition in range(4):
        records = await read_from(consumer, TopicPartition(name, partition), 0, 60)
        assert [int(record.value) for record in records] == list(range(60))
    for client in (producer, consumer, admin):
        await client.stop()


async def test_a_producer_whose_broker_is_gone_fails_in_time_and_stops_in_time(name):
    async with embedded_broker() as bootstrap:
        cluster = AioKafkaCluster(msgspec.structs.replace(embedded_settings(bootstrap), delivery_timeout_ms=500))
        admin, producer = cluster.admin(), cluster.producer()
        await admin.start()
        await admin.create_topic(TopicSpec(name=name, partitions=1))
        await admin.stop()
        await producer.start()
        await producer.send(name, Outgoing(b"v"), partition=0)
    async with within(20, "the error of a producer whose broker is gone"):
        with pytest.raises(BrokerUnavailableError, match=name):
            await producer.send(name, Outgoing(b"v"), partition=0)
        await producer.stop()


@pytest.mark.docker
async def test_kafka_in_docker_answers(docker_bootstrap):
    admin = AioKafkaCluster(KafkaSettings(bootstrap=docker_bootstrap)).admin()
    await admin.start()
    assert await admin.broker_count() == 1
    await admin.stop()
