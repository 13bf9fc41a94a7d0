"""Read dead letters, and publish their records again: to a topic that the operator chose, and only what the log
confirms.

A user who may write to the dead-letters topic can forge letters, and anybody can seal one to a public key. So a letter
decides neither the topic nor, while the log still holds its record, what is published there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Self

import msgspec

from headrace.client.publishing import Published, Publisher
from headrace.core.errors import UserError
from headrace.kafka.dead_letters import open_letter
from headrace.kafka.interface import (
    Cluster,
    Consumer,
    NotAuthorizedError,
    OffsetOutOfRangeError,
    Outgoing,
    Record,
    TopicPartition,
)
from headrace.kafka.range_reader import read_ranges, read_topic
from headrace.process.logs import event
from headrace.security.keys import PrivateKey, key_id
from headrace_schemas.dead_letters import (
    CUT,
    ENCRYPTED,
    dead_letter_from_record,
    kept,
    own_headers,
    replay_headers,
    replayed_mark,
    replayed_offset,
    sealed_to,
)
from headrace_schemas.errors import BadHeaderError, WireError, place
from headrace_schemas.headers import read_attempt
from headrace_schemas.records import DeadLetter

LETTERS = "dead letters"


class Found(msgspec.Struct, frozen=True):
    """A dead letter and its own place, ``partition`` and ``offset`` of the dead-letters topic.

    ``kept`` says how much of its record a letter keeps if not all: CUT, NOTHING, or ENCRYPTED to ``sealed_to``.
    """

    partition: int
    offset: int
    timestamp_ms: int
    letter: DeadLetter
    kept: str | None = None
    sealed_to: str | None = None


async def read_dead_letters(
    cluster: Cluster, topic: str, *, places: Sequence[tuple[int, int]] = (), last: int | None = None
) -> AsyncIterator[Found]:
    """Iterate over the letters that the topic holds now, or only over those at ``places`` (partition, offset).

    Letters that are written meanwhile are not read, so a replay never sees letters that it causes. Raises a KafkaError.
    """
    async for record in read_topic(cluster, topic, LETTERS, {number for number, _ in places}, last=last):
        if (places and (record.partition, record.offset) not in places) or replayed_offset(record.headers) is not None:
            continue
        where = place(record.topic, record.partition, record.offset)
        try:
            letter = dead_letter_from_record(record.key, record.value, record.headers, where=where)
        except WireError as error:
            event("dead_letter.unreadable", level="warning", error=str(error))
            continue
        said = kept(record.headers), sealed_to(record.headers)
        yield Found(record.partition, record.offset, record.timestamp, letter, *said)


def opened(found: Found, key: PrivateKey | None) -> Found:
    """``found`` opened by ``key``, if it is sealed to that key; otherwise unchanged. Raises SealError when it was
    tampered with.
    """
    if found.kept != ENCRYPTED or key is None or found.sealed_to != key_id(key.public()):
        return found
    return msgspec.structs.replace(found, letter=open_letter(found.letter, key), kept=None, sealed_to=None)


def lacking(found: Found) -> str | None:
    """Why ``found`` can't be replayed, in words for people; None when it can."""
    if found.kept is None:
        return None
    if found.kept == ENCRYPTED:
        return f"encrypted to the key {found.sealed_to}; --key-file names the private key that opens it"
    return "cut" if found.kept == CUT else "without its record"


class Replayed(msgspec.Struct, frozen=True):
    """What was replayed: ``places`` (partition, offset) of letters, and ``origins``, the places of their records.

    Workers of two groups that share the topic may each leave a letter for the same record.
    """

    places: frozenset[tuple[int, int]] = frozenset()
    origins: frozenset[str] = frozenset()


async def read_replayed(cluster: Cluster, topic: str) -> Replayed:
    """Read the marks that replays left.

    Without them a second run over all letters would publish each record once more. Raises a KafkaError.
    """
    places, origins = set[tuple[int, int]](), set[str]()
    async for record in read_topic(cluster, topic, LETTERS):
        if (offset := replayed_offset(record.headers)) is not None:
            places.add((record.partition, offset))
            origins.add((record.key or b"").decode("utf-8", "replace"))
    return Replayed(frozenset(places), frozenset(origins))


WINDOW = 64
"""So many offsets of a partition are read at once: the letters of a flood are about neighbouring records."""

FOREIGN = (
    "of a topic that is neither the requests topic nor the labels topic of this configuration; look at them by `show`, "
    "then name their places and --to TOPIC"
)
DIFFERENT = "that differ from the record which the log has in their place, so they are forged or changed"
UNCONFIRMED = (
    "whose record the log does not hold any more, so that nothing confirms them; look at them by `show`, then "
    "--unverified replays them"
)
UNREADABLE = (
    "whose topic this user has no right to read, so that nothing confirms them; grant Read, or look at them by `show`, "
    "then --unverified replays them"
)
REPEATED = "of a record that another letter was about, which was replayed: one record goes back once"


class NotReplayableError(UserError):
    """A dead letter that is not published again; the message says why and what to do."""


class Targets(msgspec.Struct, frozen=True):
    """Where records may go: to the ``configured`` topic that they come from, or to the topic that the operator
    ``named``.

    With ``unverified`` they go to a configured topic even if the log does not hold them any more.
    """

    configured: frozenset[str]
    named: str | None = None
    unverified: bool = False


class Originals:
    """Reads the records that letters are about, if the log still holds them. An async context manager."""

    def __init__(self, cluster: Cluster) -> None:
        self._consumer: Consumer = cluster.consumer()
        self._bounds: dict[TopicPartition, tuple[int, int]] = {}
        self._forbidden: set[str] = set()
        self._at: TopicPartition | None = None
        self._window = range(0)
        self._records: dict[int, Record] = {}

    async def __aenter__(self) -> Self:
        try:
            await self._consumer.start()
        except BaseException:
            await self._consumer.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._consumer.stop()

    async def at(self, name: TopicPartition, offset: int) -> Record | None:
        """The record at ``offset`` of ``name``; None where the log has none there. Raises a KafkaError."""
        if name.topic in self._forbidden:
            raise NotAuthorizedError(f"There is no right to read {name.topic}.")
        try:
            return await self._found(name, offset)
        except NotAuthorizedError:
            self._forbidden.add(name.topic)
            raise

    async def _found(self, name: TopicPartition, offset: int) -> Record | None:
        if name not in self._bounds:
            self._bounds[name] = await self._bounds_of(name)
        first, end = self._bounds[name]
        if not first <= offset < end:
            return None
        if name != self._at or offset not in self._window:
            await self._read(name, range(offset, min(end, offset + WINDOW)))
        return self._records.get(offset)

    async def _bounds_of(self, name: TopicPartition) -> tuple[int, int]:
        if name.partition not in await self._consumer.partitions_of(name.topic):
            return 0, 0
        first, end = await self._consumer.beginning_offsets([name]), await self._consumer.end_offsets([name])
        return first[name], end[name]

    async def _read(self, name: TopicPartition, window: range) -> None:
        self._at, self._window, self._records = name, window, {}
        try:
            async for records in read_ranges(self._consumer, {name: window.start}, {name: window.stop}, chunk=WINDOW):
                self._records.update((record.offset, record) for record in records)
        except OffsetOutOfRangeError:
            # Retention took the record since the bounds were asked for.
            del self._bounds[name]


async def refused(found: Found, targets: Targets, originals: Originals) -> str | None:
    """Why ``found`` must not be published again, in words for people; None when it may. Raises a KafkaError."""
    if (why := lacking(found)) is not None:
        return why
    if targets.named is not None:
        return None
    letter = found.letter
    if letter.topic not in targets.configured:
        return FOREIGN
    try:
        original = await originals.at(TopicPartition(letter.topic, letter.partition), letter.offset)
    except NotAuthorizedError:
        return None if targets.unverified else UNREADABLE
    if original is None:
        return None if targets.unverified else UNCONFIRMED
    return None if _same(letter, original) else DIFFERENT


async def replay(publisher: Publisher, marks: Publisher, found: Found, partition: int | None) -> Published:
    """Publish the record that ``found`` holds, with its attempt counter raised, to ``partition`` (None: by key).

    ``publisher`` writes to the record's topic; ``marks`` writes the mark of the replay to the dead-letters topic. The
    caller has asked :func:`refused`. Raises NotReplayableError for a letter that does not hold its record.
    """
    letter = found.letter
    if (why := lacking(found)) is not None:
        where = place(letter.topic, letter.partition, letter.offset)
        raise NotReplayableError(f"The dead letter of {where} is {why}.")
    record = Outgoing(letter.value, letter.key, replay_headers(letter))
    published = await publisher.publish(record, partition)
    origin = place(letter.topic, letter.partition, letter.offset).encode()
    await marks.publish(Outgoing(None, origin, replayed_mark(found.offset)), found.partition)
    return published


def _same(letter: DeadLetter, original: Record) -> bool:
    """Whether ``letter`` agrees with the log, its attempt included: otherwise a letter could be replayed for ever."""
    try:
        attempt = read_attempt(original.headers)
    except BadHeaderError:
        attempt = 1
    return (letter.key, letter.value, tuple(letter.headers), letter.attempt) == (
        original.key,
        original.value,
        own_headers(original.headers),
        attempt,
    )
