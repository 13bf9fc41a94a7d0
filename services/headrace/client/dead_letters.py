"""Reading dead letters."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import msgspec

from headrace.core.public_keys import key_id
from headrace.kafka.interface import Cluster
from headrace.kafka.keeping import open_letter
from headrace.kafka.range_reader import read_topic
from headrace.kafka.sealing import PrivateKey
from headrace.logs import event
from headrace_schemas.dead_letters import (
    CUT,
    ENCRYPTED,
    dead_letter_from_record,
    kept,
    replayed_offset,
    sealed_to,
)
from headrace_schemas.errors import WireError, place
from headrace_schemas.records import DeadLetter

LETTERS = "dead letters"


class Found(msgspec.Struct, frozen=True):
    """A dead letter and its own place, ``partition`` and ``offset`` of the dead-letters topic.

    ``kept`` says what it keeps of its record where that is not all: CUT, NOTHING, or ENCRYPTED to ``sealed_to``.
    """

    partition: int
    offset: int
    timestamp_ms: int
    letter: DeadLetter
    kept: str | None = None
    sealed_to: str | None = None


async def read_dead_letters(
    cluster: Cluster, topic: str, *, places: Sequence[tuple[int, int]] = ()
) -> AsyncIterator[Found]:
    """Iterate over the letters that the topic holds now, or only those at ``places`` (partition, offset); then end.

    What is written meanwhile is not read, so a replay never sees what it causes. Raises a KafkaError.
    """
    async for record in read_topic(cluster, topic, LETTERS, {number for number, _ in places}):
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
    """``found``, opened by ``key`` if it is sealed to it, otherwise as it is. Raises SealError when it was changed."""
    if found.kept != ENCRYPTED or key is None or found.sealed_to != key_id(key.public()):
        return found
    return msgspec.structs.replace(found, letter=open_letter(found.letter, key), kept=None, sealed_to=None)


def lacking(found: Found) -> str | None:
    """Why ``found`` can't be replayed, for people; None when it can."""
    if found.kept is None:
        return None
    if found.kept == ENCRYPTED:
        return f"encrypted to the key {found.sealed_to}; --key-file names the private key that opens it"
    return "cut" if found.kept == CUT else "without its record"


class Replayed(msgspec.Struct, frozen=True):
    """What was published again: ``places`` (partition, offset) of letters, and ``origins``, the records' own places.

    Workers of two groups that share the topic leave a letter each of one record, and the second may come late.
    """

    places: frozenset[tuple[int, int]] = frozenset()
    origins: frozenset[str] = frozenset()


async def read_replayed(cluster: Cluster, topic: str) -> Replayed:
    """Read the marks of what was published again.

    Without them a second run over all letters would publish each record once more. Raises a KafkaError.
    """
    places, origins = set[tuple[int, int]](), set[str]()
    async for record in read_topic(cluster, topic, LETTERS):
        if (offset := replayed_offset(record.headers)) is not None:
            places.add((record.partition, offset))
            origins.add((record.key or b"").decode("utf-8", "replace"))
    return Replayed(frozenset(places), frozenset(origins))
