"""From where reading is to begin, in words, to the offsets of partitions."""

from __future__ import annotations

from collections.abc import Collection

from headrace.core.starts import Start
from headrace.kafka.interface import Consumer, TopicPartition


async def offsets_of(
    consumer: Consumer, partitions: Collection[TopicPartition], start: Start
) -> dict[TopicPartition, int]:
    """Where ``start`` is in each of ``partitions``; a time past the last record is the end. Raises a KafkaError."""
    if start == "earliest":
        return await consumer.beginning_offsets(partitions)
    if start == "latest":
        return await consumer.end_offsets(partitions)
    found = await consumer.offsets_for_times(dict.fromkeys(partitions, start))
    ends = await consumer.end_offsets(partitions)
    return {name: ends[name] if (offset := found[name]) is None else offset for name in partitions}
