"""Reading dead letters and publishing them again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence

import msgspec

from headrace.client.publishing import Published, Publisher
from headrace.kafka.errors import UnknownTopicError
from headrace.kafka.interface import Cluster, Consumer, Outgoing, Record, TopicPartition
from headrace.logs import event
from headrace_schemas.dead_letters import dead_letter_from_record, replay_headers
from headrace_schemas.errors import WireError, place
from headrace_schemas.records import DeadLetter

_CHUNK = 500


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
        async for record in _records(consumer, {name: (begins[name], ends[name]) for name in names}):
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


async def _records(consumer: Consumer, ranges: Mapping[TopicPartition, tuple[int, int]]) -> AsyncIterator[Record]:
    """Iterate over the records of each partition's range, first to end (not included)."""
    waiting = {name for name, (first, end) in ranges.items() if first < end}
    consumer.assign(waiting)
    for name in waiting:
        consumer.seek(name, ranges[name][0])
    while waiting:
        chunks = await consumer.fetch(max_records=_CHUNK, timeout_s=1.0, partitions=waiting)
        for name, records in chunks.items():
            for record in records:
                if record.offset < ranges[name][1]:
                    yield record
        waiting = {name for name in waiting if await consumer.position(name) < ranges[name][1]}
