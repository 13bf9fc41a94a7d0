"""Read the records of partitions between two offsets, by a consumer that belongs to no group.

All bounded reading goes through :func:`read_ranges`. It waits for a broker that pauses, and raises a retriable error
when that takes too long. The rest of a range may hold no record (a transaction's marker, compaction): the consumer's
position or the broker tells.

:func:`last_answers` looks back in results partitions: a worker resumes by the last answers of the log, a reader by the
answers in front of its position. Both need the highest request offset, so both count answers, not offsets.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from itertools import groupby
from operator import attrgetter

from headrace.core.fields import Start
from headrace.core.resume import Answered
from headrace.kafka.interface import (
    BrokerUnavailableError,
    Cluster,
    Consumer,
    OffsetOutOfRangeError,
    Record,
    TopicPartition,
    UnknownTopicError,
    connected,
)
from headrace_schemas.codec import decode_result
from headrace_schemas.errors import WireError
from headrace_schemas.headers import content_type
from headrace_schemas.paths import Decode

CHUNK = 2000
FETCH_S = 0.5
EMPTY_FETCHES = 120
"""After so many empty fetches in a row, a minute of them, reading ends with an error."""
ASKED_EVERY = 4
"""After so many empty fetches the broker is asked whether the rest of a range is empty."""


async def read_ranges(
    consumer: Consumer,
    starts: Mapping[TopicPartition, int],
    ends: Mapping[TopicPartition, int],
    *,
    chunk: int = CHUNK,
) -> AsyncIterator[Sequence[Record]]:
    """Iterate over the records from ``starts`` up to ``ends`` (not included), at most ``chunk`` at a time.

    Those of one partition come in the order of their offsets. ``consumer`` is started; its assignment is replaced, and
    at the end it has none. Raises BrokerUnavailableError when nothing comes for a minute, and other KafkaErrors.
    """
    waiting = {name for name, start in starts.items() if start < ends[name]}
    consumer.assign(waiting)
    for name in waiting:
        consumer.seek(name, starts[name])
    empty, steps = 0, consumer.long_batch_steps()
    said_empty: set[tuple[TopicPartition, int]] = set()
    while waiting:
        chunks = await consumer.fetch(max_records=chunk, timeout_s=FETCH_S, partitions=waiting)
        records = [record for name, found in chunks.items() for record in found if record.offset < ends[name]]
        if records:
            yield records
        # By position, not by records: the last offsets may hold none, behind a transaction's marker.
        at = await consumer.positions(waiting)
        waiting = {name for name in waiting if at[name] < ends[name]}
        # A long batch is read step by step, and fetches stay empty meanwhile.
        stepped, steps = steps, consumer.long_batch_steps()
        empty = 0 if records or steps != stepped else empty + 1
        if empty and empty % ASKED_EVERY == 0:
            for place in [(name, at[name]) for name in sorted(waiting)]:
                if await consumer.holds_nothing(*place, ends[place[0]]):
                    # Asked twice: a broker that paused may answer an expired fetch with nothing.
                    if place in said_empty:
                        waiting.discard(place[0])
                    said_empty.add(place)
        if waiting and empty == EMPTY_FETCHES:
            missing = ", ".join(
                f"{name.topic}[{name.partition}] from {at[name]} up to {ends[name]}" for name in sorted(waiting)
            )
            raise BrokerUnavailableError(
                f"For {EMPTY_FETCHES * FETCH_S:.0f} s nothing more came of {missing}. "
                "Is a broker away, or was a topic deleted?"
            )
    # A consumer with an assignment keeps fetching, and its other requests wait behind the fetch.
    consumer.assign(())


async def read_topic(
    cluster: Cluster, topic: str, of: str, only: Collection[int] = (), *, last: int | None = None
) -> AsyncIterator[Record]:
    """Iterate over the records that ``topic`` holds now; with ``only``, over those of these partitions.

    With ``last`` only about so many of the last offsets are read, spread over the partitions. Records that are written
    meanwhile are not read. Raises UnknownTopicError when there is no such topic; its message
    names ``of``, which is what was to be read. Raises as read_ranges does.
    """
    async with connected(cluster.consumer()) as consumer:
        numbers = await consumer.partitions_of(topic)
        if not numbers:
            raise UnknownTopicError(f"There is no topic {topic} to read {of} from.")
        names = [TopicPartition(topic, number) for number in sorted(numbers) if not only or number in only]
        begins, ends = await consumer.beginning_offsets(names), await consumer.end_offsets(names)
        if last is not None:
            each = max(1, last // len(names))
            begins = {name: max(begin, ends[name] - each) for name, begin in begins.items()}
        async for records in read_ranges(consumer, begins, ends):
            for record in records:
                yield record


async def last_answers(
    consumer: Consumer, logs: Mapping[TopicPartition, tuple[int, int]], count: int
) -> dict[TopicPartition, tuple[Answered, ...]]:
    """The last ``count`` answers of each log in its order; fewer where it holds fewer.

    ``logs`` has where each log begins and the offset to stop in front of. Offsets that hold no answer (none at all, a
    transaction's marker, somebody else's record) are stepped over: each look goes twice as far back as the one before.
    ``consumer`` is started and of no group; it is left with no assignment. Raises a KafkaError.
    """
    answers: dict[TopicPartition, list[Answered]] = {name: [] for name in logs}
    reach = count
    short = {name: end for name, (begin, end) in logs.items() if count and begin < end}
    while short:
        starts = {name: max(logs[name][0], logs[name][1] - reach) for name in short}
        found: dict[TopicPartition, list[Answered]] = {name: [] for name in short}
        async for records in read_ranges(consumer, starts, short):
            for place, run in groupby(records, attrgetter("topic", "partition")):
                found[TopicPartition(*place)] += [one for record in run if (one := _answer(record)) is not None]
        for name, earlier in found.items():
            answers[name] = earlier + answers[name]
        short = {name: start for name, start in starts.items() if start > logs[name][0] and len(answers[name]) < count}
        reach *= 2
    return {name: tuple(of_log[-count:]) if count else () for name, of_log in answers.items()}


def _answer(record: Record) -> Answered | None:
    try:
        result = decode_result(record.value, content_type(record.headers))
    except WireError:
        # Somebody else wrote here. The claim keeps workers out, and readers report every such record.
        return None
    return Answered(result.offset, result.crc)


async def offsets_of(
    consumer: Consumer, partitions: Collection[TopicPartition], start: Start
) -> dict[TopicPartition, int]:
    """The offset of ``start`` in each of ``partitions``. A time past the last record is the end. Raises a
    KafkaError.
    """
    if start == "earliest":
        return await consumer.beginning_offsets(partitions)
    if start == "latest":
        return await consumer.end_offsets(partitions)
    found = await consumer.offsets_for_times(dict.fromkeys(partitions, start))
    ends = await consumer.end_offsets(partitions)
    return {name: ends[name] if (offset := found[name]) is None else offset for name in partitions}


NEAR = 100
"""Requests that lie no further apart are read in one go: reading those between costs less than another fetch."""


async def read_texts(
    consumer: Consumer, topic: str, places: Collection[tuple[int, int]], decode: Decode
) -> dict[tuple[int, int], str]:
    """The texts of the requests at ``places`` (partition, offset), without those that are deleted or hold no text.

    ``consumer`` is started. Raises a KafkaError that says what could not be read.
    """
    wanted = frozenset(places)
    texts: dict[tuple[int, int], str] = {}
    if not wanted:
        return texts
    names = {TopicPartition(topic, partition) for partition, _ in wanted}
    begins, ends = await consumer.beginning_offsets(names), await consumer.end_offsets(names)
    for partition, first, last in _runs(wanted):
        name = TopicPartition(topic, partition)
        # Retention may have deleted the first of them, and reading would wait for a place behind the end.
        start, end = max(first, begins[name]), min(last + 1, ends[name])
        try:
            async for records in read_ranges(consumer, {name: start}, {name: end}, chunk=min(CHUNK, last + 1 - first)):
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
