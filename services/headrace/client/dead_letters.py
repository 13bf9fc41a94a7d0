"""Reading dead letters and publishing them again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import msgspec

from headrace.client.publishing import Published, Publisher
from headrace.kafka.errors import UnknownTopicError
from headrace.kafka.interface import Cluster, Outgoing, TopicPartition
from headrace.kafka.stretches import read_stretches
from headrace.logs import event
from headrace_schemas.dead_letters import dead_letter_from_record, replay_headers
from headrace_schemas.errors import WireError, place
from headrace_schemas.records import DeadLetter


class Found(msgspec.Struct, frozen=True):
    """A dead letter and its own place, ``partition`` and ``offset`` of the dead-letters topic."""

    partition: int
    offset: int
    timestamp_ms: int
    letter: DeadLetter


async def read_dead_letters(
    cluster: Cluster, topic: str, *, places: Sequence[tuple[int, int]] = ()
) -> AsyncIterator[Found]:
    """Iterate over what the topic holds now, or only what is at ``places`` (partition, offset); then end.

    What is written meanwhile is not read, so a replay never sees what it causes. Raises a KafkaError.
    """
    consumer = cluster.consumer()
    try:
        await consumer.start()
        numbers = await consumer.partitions_of(topic)
        if not numbers:
            raise UnknownTopicError(f"There is no topic {topic} to read dead letters from.")
        wanted = {number for number, _ in places} or numbers
        names = [TopicPartition(topic, number) for number in sorted(numbers & wanted)]
        begins, ends = await consumer.beginning_offsets(names), await consumer.end_offsets(names)
        async for records in read_stretches(consumer, begins, ends):
            for record in records:
                if places and (record.partition, record.offset) not in places:
                    continue
                where = place(record.topic, record.partition, record.offset)
                try:
                    letter = dead_letter_from_record(record.key, record.value, record.headers, where=where)
                except WireError as error:
                    event("dead_letter.unreadable", level="warning", error=str(error))
                    continue
                yield Found(record.partition, record.offset, record.timestamp, letter)
    finally:
        await consumer.stop()


async def replay(publisher: Publisher, letter: DeadLetter) -> Published:
    """Publish the request as it was, with its attempt counter raised, to the partition that it was in."""
    record = Outgoing(letter.value, letter.key, replay_headers(letter))
    return await publisher.publish(record, letter.partition)
