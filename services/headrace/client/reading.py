"""Reading the answer log: each answer once, repeats dropped and holes reported, also after a restart.

:func:`read_texts` reads the texts of the requests that were answered.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable, Mapping

import msgspec

from headrace.client.arguments import AnswerLogError, seconds
from headrace.core.answer_log import Hole, PartitionReader, Place, as_place
from headrace.core.clock import Clock
from headrace.core.fields import Start, parse_start
from headrace.core.resume import LARGEST_MAX_BATCH, last_answered, look_back
from headrace.kafka.interface import (
    Consumer,
    Headers,
    KafkaError,
    OffsetOutOfRangeError,
    Record,
    TopicPartition,
    UnknownTopicError,
)
from headrace.kafka.range_reader import last_answers, offsets_of
from headrace.process.logs import event
from headrace_schemas.codec import decode_result
from headrace_schemas.errors import WireError, place
from headrace_schemas.headers import content_type
from headrace_schemas.records import ClassifyResult

Places = Mapping[int, Place] | Mapping[int, int]
From = str | dt.datetime | Places
"""A start as :mod:`headrace.core.fields` reads it, such as "latest", or a place in each results partition. A partition
that is not named begins at its beginning.

A position alone is a place without its highest request offset. The reader looks back for it.
"""

LOOK_BACK = look_back(LARGEST_MAX_BATCH)
LOOK_S = 5.0
"""How often a reader looks for added partitions, and whether the log is still the one that it has read."""
LOOK_AGAIN_S = 1.0
"""When it looks again if the log seems to be another one: a broker that has just started may not know better for a
moment.
"""
CHUNK = 1000
"""Records fetched at once."""


class Answer(msgspec.Struct, frozen=True):
    """An accepted answer. ``position`` is the offset of the answer in results partition ``partition``.

    ``hole``, nearly always None, says which requests before this one have no answer. ``assignment`` is for readers of a
    group: in which of its assignments, counted from 1, the answer came.
    """

    partition: int
    position: int
    timestamp_ms: int
    key: bytes | None
    headers: Headers
    result: ClassifyResult
    hole: Hole | None = None
    assignment: int = 0

    @property
    def place(self) -> Place:
        """Where a reader goes on that has processed this answer and all answers before it in its partition."""
        return Place(self.position + 1, self.result.offset)


def log_cut(name: TopicPartition, position: int, end: int) -> str:
    """The message about a partition that ends before the reader's position."""
    return (
        f"{name.topic}[{name.partition}] ends at {end}, before the position {position} to go on from: the topic was "
        "cut or made anew. Begin again from its beginning or its end."
    )


def topic_gone(topic: str, position: tuple[int, int] | None = None) -> str:
    """The message about a topic that is gone; ``position`` is a partition and how far it was read."""
    read = "" if position is None else f", whose partition {position[0]} was read up to {position[1]}"
    return (
        f"There is no topic {topic} any more{read}: it was deleted, or a broker came back without its log. Create it "
        "by `headrace topics apply` and start the workers again; then begin from its beginning."
    )


class LogWatch:
    """Looks every :data:`LOOK_S` whether ``topic`` is still the log that was read.

    A fetch doesn't show it: a fetch from a topic that is gone returns nothing, and on the embedded broker so does a
    position beyond the end. After an election a partition may seem shorter for a moment, so a difference counts only
    when two looks see it. ``consumer`` is started and has no group.
    """

    def __init__(self, consumer: Consumer, topic: str, clock: Clock) -> None:
        self._consumer = consumer
        self._topic = topic
        self._clock = clock
        self._due_s = clock.monotonic() + LOOK_S
        self._last: dict[TopicPartition, int] = {}
        self._suspected: dict[TopicPartition | None, str] = {}

    async def look(self, positions: Mapping[TopicPartition, int]) -> frozenset[int]:
        """Look if it is time. Returns the partitions of the topic, and without a look none.

        Raises AnswerLogError where ``positions`` are not in the log, at two looks in a row, and a KafkaError.
        """
        if self._clock.monotonic() < self._due_s:
            return frozenset()
        there = await self._consumer.partitions_of(self._topic)
        found = await self._not_there(positions, there)
        self._last |= positions
        for name, fault in found.items():
            if name in self._suspected:
                raise AnswerLogError(fault)
        self._suspected = found
        self._due_s = self._clock.monotonic() + (LOOK_AGAIN_S if found else LOOK_S)
        return there

    async def _not_there(
        self, positions: Mapping[TopicPartition, int], there: frozenset[int]
    ) -> dict[TopicPartition | None, str]:
        """What is wrong with each partition, and under None, with the whole topic."""
        if not there:
            read = {**self._last, **positions}
            first = min(read, default=None)
            return {None: topic_gone(self._topic, None if first is None else (first.partition, read[first]))}
        # A partition whose position has moved meanwhile is fine.
        quiet = [name for name, at in positions.items() if name.partition in there and self._last.get(name) == at]
        if not quiet:
            return {}
        try:
            ends = await self._consumer.end_offsets(quiet)
        except KafkaError as error:
            event("answers.not-looked", level="debug", error=str(error))
            return {}
        return {name: log_cut(name, positions[name], ends[name]) for name in quiet if ends[name] < positions[name]}


class AnswerReader:
    """Reads all results partitions, or those that ``partitions`` names. Added partitions are read from their beginning.

    A place with its highest request offset tells what was read before. Without it the reader looks back over the
    ``look_back`` answers in front of its position.
    """

    def __init__(
        self,
        consumer: Consumer,
        topic: str,
        *,
        from_: From = "latest",
        partitions: Collection[int] | None = None,
        look_back: int = LOOK_BACK,
        clock: Clock,
    ) -> None:
        self._consumer = consumer
        self._topic = topic
        self._from = from_ if isinstance(from_, Mapping) else parse_start(from_)
        self._only = None if partitions is None else frozenset(partitions)
        self._look_back = look_back
        self._clock = clock
        self._readers: dict[TopicPartition, PartitionReader] = {}
        self._positions: dict[TopicPartition, int] = {}
        self._watch: LogWatch | None = None

    @property
    def positions(self) -> dict[int, Place]:
        """The place behind the last answer read in each partition: ``from_`` of a later reader.

        :func:`~headrace.core.answer_log.encode_positions` makes JSON of it. A program that has not processed all
        answers yet keeps :attr:`Answer.place` instead.
        """
        return {
            name.partition: Place(position, self._readers[name].highest) for name, position in self._positions.items()
        }

    async def start(self) -> None:
        """Find the positions.

        Raises a KafkaError, which is an UnknownTopicError for a partition that is not there, and AnswerLogError for a
        position beyond the log's end.
        """
        await self._consumer.start()
        there = await self._consumer.partitions_of(self._topic)
        if not there:
            raise UnknownTopicError(
                f"There is no topic {self._topic} to read answers from. Create it first, for example by "
                "`headrace topics apply`."
            )
        named = (self._only or frozenset()) | (self._from.keys() if isinstance(self._from, Mapping) else frozenset())
        if absent := sorted(named - there):
            raise UnknownTopicError(
                f"Topic {self._topic} has no partition {absent[0]}; it has {len(there)}, from 0 to {max(there)}."
            )
        self._watch = LogWatch(self._consumer, self._topic, self._clock)
        await self._take_in(there if self._only is None else self._only, self._from)

    async def stop(self) -> None:
        await self._consumer.stop()

    async def read(self, *, timeout_s: float = 1.0) -> list[Answer]:
        """Wait up to ``timeout_s`` for answers; those of one partition are in the order of their requests.

        Raises a KafkaError, AnswerLogError when the log was cut, made anew or deleted under this reader, and
        ArgumentError.
        """
        timeout_s = seconds("timeout_s", timeout_s)
        await self._look()
        try:
            chunks = await self._consumer.fetch(max_records=CHUNK, timeout_s=timeout_s)
        except OffsetOutOfRangeError as error:
            for name, begin in (await begins_after_retention(self._consumer, error)).items():
                self._positions[name] = begin
                self._consumer.seek(name, begin)
            return []
        answers: list[Answer] = []
        for name, records in chunks.items():
            if records:
                reader = self._readers[name]
                answers += [answer for record in records if (answer := read_answer(reader, record)) is not None]
                self._positions[name] = records[-1].offset + 1
        return answers

    async def ends(self) -> dict[int, int]:
        """The present end of each results partition. Raises a KafkaError."""
        ends = await self._consumer.end_offsets(self._positions)
        return {name.partition: end for name, end in ends.items()}

    async def _look(self) -> None:
        if self._watch is None:
            return
        there = await self._watch.look(self._positions)
        if self._only is None and (new := there - {name.partition for name in self._positions}):
            await self._take_in(new, "earliest")

    async def _take_in(self, numbers: Iterable[int], from_: Start | Places) -> None:
        new = [TopicPartition(self._topic, number) for number in sorted(numbers)]
        begins = await self._consumer.beginning_offsets(new)
        if isinstance(from_, Mapping):
            places = {name: as_place(from_.get(name.partition, begins[name])) for name in new}
        else:
            places = {name: Place(at) for name, at in (await offsets_of(self._consumer, new, from_)).items()}
        # Asked after the places, because a place beyond the end means that the log was cut.
        ends = await self._consumer.end_offsets(new)
        starts = {name: start_in_log(name, place, begins[name], ends[name]) for name, place in places.items()}
        self._readers |= await readers_at(self._consumer, starts, begins, look_back=self._look_back)
        self._positions |= {name: start.position for name, start in starts.items()}
        self._consumer.assign(self._positions)
        for name, position in self._positions.items():
            self._consumer.seek(name, position)


def start_in_log(name: TopicPartition, start: Place, begin: int, end: int) -> Place:
    """Where to begin for a reader at ``start``: later, if retention deleted that place.

    Raises AnswerLogError when it is beyond the end.
    """
    if start.position > end:
        raise AnswerLogError(log_cut(name, start.position, end))
    if start.position < begin:
        event("answers.deleted", level="warning", partition=name.partition, first=start.position, next=begin)
    return Place(max(start.position, begin), start.highest)


async def readers_at(
    consumer: Consumer, starts: Mapping[TopicPartition, Place], begins: Mapping[TopicPartition, int], *, look_back: int
) -> dict[TopicPartition, PartitionReader]:
    """Readers that know which answers were accepted before ``starts``: by the place, or by the last ``look_back``
    answers.

    ``consumer`` is of no group and is left with no assignment. Raises a KafkaError.
    """
    unknown = {name: (begins[name], start.position) for name, start in starts.items() if start.highest is None}
    last = {name: last_answered(found) for name, found in (await last_answers(consumer, unknown, look_back)).items()}
    seen = {name: found.offset for name, found in last.items() if found is not None}
    return {name: PartitionReader(seen.get(name, start.highest)) for name, start in starts.items()}


async def begins_after_retention(consumer: Consumer, error: OffsetOutOfRangeError) -> dict[TopicPartition, int]:
    """Where a reader goes on that retention has overtaken. Its next answer reports the hole.

    Raises AnswerLogError when the log was cut instead, and a KafkaError.
    """
    names = [TopicPartition(*name) for name in error.positions]
    begins = await consumer.beginning_offsets(names)
    for name in names:
        position = error.positions[name]
        if position > begins[name]:
            end = (await consumer.end_offsets([name]))[name]
            # The log may have grown past the position since.
            raise AnswerLogError(log_cut(name, position, min(end, position - 1))) from error
        event("answers.deleted", level="warning", partition=name.partition, first=position, next=begins[name])
    return begins


def read_answer(reader: PartitionReader, record: Record, assignment: int = 0) -> Answer | None:
    """Return the answer in ``record``, None for a repeat and for a record that is no answer."""
    result = read_result(record)
    if result is None:
        return None
    reading = reader.read(result.offset, result.after)
    if not reading.accepted:
        return None
    return Answer(
        record.partition, record.offset, record.timestamp, record.key, record.headers, result, reading.hole, assignment
    )


def read_result(record: Record) -> ClassifyResult | None:
    """Decode an answer; None for any other record. If an answer should be here, the next one reports the hole."""
    try:
        return decode_result(record.value, content_type(record.headers))
    except WireError as error:
        where = place(record.topic, record.partition, record.offset)
        event("answer.unreadable", level="warning", error=str(error.at(where)))
        return None
