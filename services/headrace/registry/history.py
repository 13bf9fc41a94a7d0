"""What the models topic still has of the past: its records that compaction has not taken yet, and moves of aliases."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TypeVar

import msgspec

from headrace.kafka.interface import Cluster, Record, TopicPartition
from headrace.kafka.range_reader import read_ranges
from headrace_schemas.codec import decode_models_record
from headrace_schemas.errors import WireError
from headrace_schemas.records import ModelAlias

R = TypeVar("R")


class Move(msgspec.Struct, frozen=True):
    """A record that moved, or pinned, an alias, and the record's own time in milliseconds since the Unix epoch."""

    alias: ModelAlias
    recorded_ms: int


async def models_records(cluster: Cluster, topic: str, kind: type[R]) -> AsyncIterator[tuple[Record, R]]:
    """Every record of that kind, as it lies there and decoded, oldest first, up to the topic's present end.

    What can't be decoded is passed over. Raises a KafkaError.
    """
    consumer, partition = cluster.consumer(), TopicPartition(topic, 0)
    try:
        await consumer.start()
        starts, ends = await consumer.beginning_offsets([partition]), await consumer.end_offsets([partition])
        async for records in read_ranges(consumer, starts, ends):
            for record in records:
                try:
                    decoded = decode_models_record(record.value)
                except WireError:  # who follows the topic has been told of it
                    continue
                if isinstance(decoded, kind):
                    yield record, decoded
    finally:
        await consumer.stop()


async def alias_moves(cluster: Cluster, topic: str, name: str) -> list[Move]:
    """The records of model ``name``'s aliases, oldest first, up to the topic's present end. Raises a KafkaError."""
    return [
        Move(alias, record.timestamp)
        async for record, alias in models_records(cluster, topic, ModelAlias)
        if alias.name == name
    ]
