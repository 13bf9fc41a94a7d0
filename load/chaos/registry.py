"""The models topic of a run: what it holds, every record in order, and what a fault appends to it."""

from __future__ import annotations

from typing import TypeVar

from headrace.kafka.aio import AioKafkaCluster
from headrace.kafka.interface import Outgoing, TopicPartition
from headrace.kafka.stretches import read_stretches
from headrace.registry.models_writer import ModelsWriter
from headrace_load.system import System
from headrace_schemas.codec import decode_models_record
from headrace_schemas.errors import WireError
from headrace_schemas.records import ModelsRecord

T = TypeVar("T")


async def models_records(system: System, kind: type[T]) -> list[T]:
    """Every record of that kind up to the topic's present end, in order; what compaction takes is gone.

    Rubbish is passed over. Raises a KafkaError.
    """
    consumer, partition = AioKafkaCluster(system.kafka_settings()).consumer(), TopicPartition(system.models, 0)
    found: list[T] = []
    try:
        await consumer.start()
        starts, ends = await consumer.beginning_offsets([partition]), await consumer.end_offsets([partition])
        async for records in read_stretches(consumer, starts, ends):
            for record in records:
                try:
                    decoded = decode_models_record(record.value)
                except WireError:
                    continue
                if isinstance(decoded, kind):
                    found.append(decoded)
    finally:
        await consumer.stop()
    return found


async def publish(system: System, *records: ModelsRecord) -> None:
    """Append records, as one batch. Raises a KafkaError."""
    producer = AioKafkaCluster(system.kafka_settings()).producer()
    await producer.start()
    try:
        await ModelsWriter(producer, system.models).publish(records)
    finally:
        await producer.stop()


async def publish_bytes(system: System, topic: str, *records: Outgoing) -> None:
    """Append bytes as they are to partition 0. Raises a KafkaError."""
    producer = AioKafkaCluster(system.kafka_settings()).producer()
    await producer.start()
    try:
        await producer.send_batch(topic, 0, records)
    finally:
        await producer.stop()
