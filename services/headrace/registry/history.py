"""What the models topic still has of the past: every move of an alias that compaction has not taken yet."""

from __future__ import annotations

from headrace.kafka.interface import Cluster, TopicPartition
from headrace_schemas.codec import decode_models_record
from headrace_schemas.errors import WireError
from headrace_schemas.records import ModelAlias

_CHUNK = 1000
_FETCH_S = 0.5


async def alias_moves(cluster: Cluster, topic: str, name: str) -> list[ModelAlias]:
    """The records of model ``name``'s aliases, oldest first, up to the topic's present end. Raises a KafkaError."""
    consumer, partition = cluster.consumer(), TopicPartition(topic, 0)
    moves: list[ModelAlias] = []
    try:
        await consumer.start()
        consumer.assign([partition])
        position = (await consumer.beginning_offsets([partition]))[partition]
        end = (await consumer.end_offsets([partition]))[partition]
        consumer.seek(partition, position)
        while position < end:
            chunk = (await consumer.fetch(max_records=_CHUNK, timeout_s=_FETCH_S)).get(partition, ())
            for record in chunk:
                try:
                    decoded = decode_models_record(record.value)
                except WireError:  # who follows the topic has been told of it
                    continue
                if isinstance(decoded, ModelAlias) and decoded.name == name:
                    moves.append(decoded)
            position = await consumer.position(partition)
    finally:
        await consumer.stop()
    return moves
