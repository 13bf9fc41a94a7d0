"""What the models topic still has of the past: every move of an alias that compaction has not taken yet."""

from __future__ import annotations

import msgspec

from headrace.kafka.interface import Cluster, TopicPartition
from headrace.kafka.stretches import read_stretches
from headrace_schemas.codec import decode_models_record
from headrace_schemas.errors import WireError
from headrace_schemas.records import ModelAlias


class Move(msgspec.Struct, frozen=True):
    """A record that moved, or pinned, an alias, and the record's own time in milliseconds since the Unix epoch."""

    alias: ModelAlias
    recorded_ms: int


async def alias_moves(cluster: Cluster, topic: str, name: str) -> list[Move]:
    """The records of model ``name``'s aliases, oldest first, up to the topic's present end. Raises a KafkaError."""
    consumer, partition = cluster.consumer(), TopicPartition(topic, 0)
    moves: list[Move] = []
    try:
        await consumer.start()
        starts, ends = await consumer.beginning_offsets([partition]), await consumer.end_offsets([partition])
        async for records in read_stretches(consumer, starts, ends):
            for record in records:
                try:
                    decoded = decode_models_record(record.value)
                except WireError:  # who follows the topic has been told of it
                    continue
                if isinstance(decoded, ModelAlias) and decoded.name == name:
                    moves.append(Move(decoded, record.timestamp))
    finally:
        await consumer.stop()
    return moves
