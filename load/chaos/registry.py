"""The models topic of a run: what it holds, every record in order, and what a fault appends to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

from headrace.kafka.aio import AioKafkaCluster
from headrace.kafka.interface import Outgoing, Producer
from headrace.registry import models_log
from headrace.registry.models_log import ModelsWriter
from headrace_load.target import System
from headrace_schemas.records import ModelsRecord

T = TypeVar("T")


async def models_records(system: System, kind: type[T]) -> list[T]:
    """Every record of that kind up to the topic's present end, in order; what compaction takes is gone.

    Rubbish is passed over. Raises a KafkaError.
    """
    cluster = AioKafkaCluster(system.kafka_settings())
    return [record async for _, record in models_log.models_records(cluster, system.models, kind)]


async def publish(system: System, *records: ModelsRecord) -> None:
    """Append records, as one batch. Raises a KafkaError."""
    async with _producer(system) as producer:
        await ModelsWriter(producer, system.models).publish(records)


async def publish_bytes(system: System, topic: str, *records: Outgoing) -> None:
    """Append bytes as they are to partition 0. Raises a KafkaError."""
    async with _producer(system) as producer:
        await producer.send_batch(topic, 0, records)


@asynccontextmanager
async def _producer(system: System) -> AsyncIterator[Producer]:
    producer = AioKafkaCluster(system.kafka_settings()).producer()
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()
