"""The texts of requests whose places are known, read from the requests topic: what was it that was answered?"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from headrace.kafka.interface import Consumer, OffsetOutOfRangeError, TopicPartition
from headrace.kafka.range_reader import read_ranges
from headrace_schemas.errors import WireError
from headrace_schemas.headers import content_type
from headrace_schemas.paths import Decode

NEAR = 100
"""Requests that lie no further apart are read in one go: a fetch brings those between for less than one of its own."""


async def read_texts(
    consumer: Consumer, topic: str, places: Collection[tuple[int, int]], decode: Decode
) -> dict[tuple[int, int], str]:
    """The texts of the requests at ``places`` (partition, offset); of those that are deleted or hold none, nothing.

    ``consumer`` is started. Raises a KafkaError that says what could not be read.
    """
    wanted = frozenset(places)
    texts: dict[tuple[int, int], str] = {}
    if not wanted:
        return texts
    names = {TopicPartition(topic, partition) for partition, _ in wanted}
    begins = await consumer.beginning_offsets(names)
    for partition, first, last in _runs(wanted):
        name = TopicPartition(topic, partition)
        # Retention may have taken the first of them.
        start = max(first, begins[name])
        try:
            async for records in read_ranges(
                consumer, {name: start}, {name: last + 1}, chunk=min(CHUNK, last + 1 - first)
            ):
                for record in records:
                    if (partition, record.offset) in wanted:
                        try:
                            text = decode(record.value, content_type(record.headers)).text
                        except WireError:  # answered by its failure
                            continue
                        texts[partition, record.offset] = text
        except OffsetOutOfRangeError:  # retention took them meanwhile
            continue
    return texts


def _runs(places: Collection[tuple[int, int]]) -> Iterator[tuple[int, int, int]]:
    """Partition, first and last offset of each run of places that lie near each other."""
    run: tuple[int, int, int] | None = None
    for partition, offset in sorted(places):
        if run is not None and run[0] == partition and offset - run[2] <= NEAR:
            run = (partition, run[1], offset)
            continue
        if run is not None:
            yield run
        run = (partition, offset, offset)
    if run is not None:
        yield run
