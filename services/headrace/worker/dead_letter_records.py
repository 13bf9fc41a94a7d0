"""Writes the dead letters of a slice as Kafka's record batches, in one compiled call that holds no lock.

They are the bytes that :func:`headrace.kafka.dead_letters.dead_letter` and a producer make. In a flood of rubbish each
record is published a second time, as its letter, so none becomes an object here.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.kafka.columns import Columns
from headrace.kafka.dead_letters import Header, Keep, attempt_of, keep_whole, kept_of
from headrace.kafka.interface import FetchedRecord
from headrace.kafka.packed_records import HEAD, PackedRecords, header_fields, packed_headers
from headrace.kafka.record_writing import (
    MOST_RECORD,
    ROOM,
    Spans,
    copy,
    cut,
    digits_of,
    spans_of,
    varint,
    varint_size,
    write_number,
)
from headrace.model.compiling import kernel
from headrace_schemas.dead_letters import (
    MAX_MESSAGE_BYTES,
    MESSAGE,
    OFFSET,
    TIMESTAMP,
    dead_letter_headers,
    message_bytes,
)
from headrace_schemas.errors import WireError, place
from headrace_schemas.records import DeadLetter
from headrace_schemas.topics import MAX_REQUEST_BYTES


class Failure(msgspec.Struct, frozen=True):
    """Why a request is answered ``failed``: the stage, a code that never changes, and a message for people.

    The message does not name the record: the dead letter puts the record's place in front of it.
    """

    stage: str
    code: str
    message: str


def undecoded(error: WireError) -> Failure:
    """The failure of a request that can't be decoded."""
    return Failure("decode", error.code, str(error))


class Failed(msgspec.Struct, frozen=True, eq=False):
    """Some of ``records`` failed: those at ``places`` int64[n], by ``failures[faults[i]]``, ``faults`` int32[n]."""

    records: Columns
    places: NDArray[np.int64]
    faults: NDArray[np.int32]
    failures: Sequence[Failure]


class _Alike(msgspec.Struct, frozen=True):
    """What letters may have alike: the record's own headers, those that say what was kept, and the attempt."""

    own: tuple[Header, ...]
    kept: tuple[Header, ...]
    attempt: int


_VARY: Final = (OFFSET, TIMESTAMP, MESSAGE)
"""The headers, in their order, whose values differ from letter to letter."""
_OFFSET, _TIMESTAMP, _MESSAGE, _REST = range(4)
_PIECES = 4
"""Of a letter's headers: what stands in front of each of these values, and the rest."""
_BEHIND_PLACE = ": "
_MOST_DIGITS = 20
_MOST_BESIDE = MOST_RECORD + 3 * (1 + _MOST_DIGITS) + 2
"""A letter has at most so many bytes beside its key, value, pieces, place and message: the numbers of a record, offset,
timestamp and once more the offset with their lengths, and the length of the message.
"""
_HEAD_BYTES = HEAD.size


def write_dead_letters(failed: Failed, *, version: str | None, keep: Keep, batch_bytes: int) -> PackedRecords:
    """The dead letters of ``failed``, in batches of less than ``batch_bytes``; a larger letter has one of its own.

    ``keep`` decides what they keep, ``version`` is the one that answered. A long message is cut.
    """
    records, places, failures = failed.records, failed.places, failed.failures
    keys, values, kinds, alike = _kept(failed, keep)
    ways = list(dict.fromkeys((failure.stage, failure.code) for failure in failures))
    way_of = np.array([ways.index((failure.stage, failure.code)) for failure in failures], np.int64)
    chosen, headers = _numbered(kinds * len(ways) + way_of[failed.faults])
    pieces: list[bytes] = []
    for kind, way in (divmod(number, len(ways)) for number in chosen.tolist()):
        pieces += _pieces(records.topic, records.partition, alike[kind], *ways[way], version)
    where = place(records.topic, records.partition, 0)[:-1].encode()
    most = MAX_MESSAGE_BYTES - len(where) - _MOST_DIGITS
    messages = [message_bytes(_BEHIND_PLACE + failure.message, most) for failure in failures]
    piece_ends, message_ends = _ends(pieces), _ends(messages)
    count = len(places)
    # Each letter by its own headers: those of one may be a megabyte.
    said = int(np.diff(piece_ends[::_PIECES])[headers].sum()) + int(np.diff(message_ends)[failed.faults].sum())
    room = count * (_MOST_BESIDE + len(where)) + said + keys.total() + values.total() + ROOM
    out = np.empty(room, np.uint8)
    ends, counts = np.zeros((2, count + 1), np.int64)
    batches = _write(
        records.offsets[places],
        records.timestamps[places],
        *((spans.data, spans.starts, spans.sizes) for spans in (keys, values)),
        headers,
        np.frombuffer(b"".join(pieces), np.uint8),
        piece_ends,
        failed.faults,
        np.frombuffer(b"".join(messages), np.uint8),
        message_ends,
        np.frombuffer(where, np.uint8),
        batch_bytes,
        out,
        ends,
        counts,
    )
    return cut(out, ends[: batches + 1], counts[: batches + 1])


def warm() -> None:
    """Load the kernel from numba's cache, or compile it."""
    records = Columns.of([FetchedRecord("", 0, 0, 0, None, b"", ())])
    failed = Failed(records, np.zeros(1, np.int64), np.zeros(1, np.int32), [Failure("", "", "")])
    write_dead_letters(failed, version=None, keep=keep_whole, batch_bytes=1)


def _numbered(values: NDArray[np.integer[Any]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The different ones of small numbers, sorted, and for each number its place there. Nothing is sorted, as by
    np.unique.
    """
    there = np.bincount(values) > 0
    return np.flatnonzero(there), (np.cumsum(there) - 1)[values]


def _ends(pieces: Sequence[bytes]) -> NDArray[np.int64]:
    return np.array([0, *accumulate(map(len, pieces))], np.int64)


def _kept(failed: Failed, keep: Keep) -> tuple[Spans, Spans, NDArray[np.int64], list[_Alike]]:
    """What is kept of keys and values, and for each letter which of the last it has ``int64[n]``."""
    records, places = failed.records, failed.places
    if keep is keep_whole and not records.discarded and records.sizes[places].max() <= MAX_REQUEST_BYTES:
        all_kinds, first = records.header_kinds()
        found, kinds = _numbered(all_kinds[places])
        own = [tuple(records.headers(first[kind])) for kind in found.tolist()]
        keys = Spans(records.data, records.key_starts[places], records.key_lengths[places])
        values = Spans(records.data, records.value_starts[places], records.value_lengths[places])
        return keys, values, kinds, [_Alike(headers, (), attempt_of(headers)) for headers in own]
    numbers: dict[_Alike, int] = {}
    kept = [kept_of(record, keep) for record in records.at(places)]
    kinds = np.array(
        [
            numbers.setdefault(_Alike(tuple(one.headers), one.said, attempt_of(records.headers(at))), len(numbers))
            for at, one in zip(places.tolist(), kept, strict=True)
        ],
        np.int64,
    )
    keys, values = (
        spans_of(dict(enumerate(parts)), len(kept))
        for parts in ([one.key for one in kept], [one.value for one in kept])
    )
    return keys, values, kinds, list(numbers)


# Most records of a topic have the same headers, and fail in few ways. The cache is small: headers may be large.
@lru_cache(maxsize=64)
def _pieces(topic: str, partition: int, alike: _Alike, stage: str, code: str, version: str | None) -> list[bytes]:
    """The packed headers of a letter, cut in front of each value that varies and of its length."""
    letter = DeadLetter(
        topic=topic,
        partition=partition,
        offset=0,
        timestamp_ms=0,
        stage=stage,
        error=code,
        message="",
        attempt=alike.attempt,
        version=version,
        headers=alike.own,
    )
    headers = (*dead_letter_headers(letter), *alike.kept)
    pieces = [packed_headers(headers)[: -len(header_fields(headers))]]
    for name, value in headers:
        if name in _VARY:
            # A value of None is one byte.
            pieces[-1] += header_fields(((name, None),))[:-1]
            pieces.append(b"")
        else:
            pieces[-1] += header_fields(((name, value),))
    return pieces


@kernel
def _sized_number(value, size, out, at):  # type: ignore[no-untyped-def]
    """Write a header's value that is a whole number of ``size`` characters, behind its length."""
    return write_number(value, size, out, varint(size, out, at))


@kernel
def _write(  # type: ignore[no-untyped-def]  # noqa: PLR0917 - one loop
    offsets,
    timestamps,
    keys,
    values,
    headers,
    pieces,
    piece_ends,
    faults,
    messages,
    message_ends,
    where,
    batch_bytes,
    out,
    ends,
    counts,
):
    """Write all letters into ``out``; returns the number of batches, whose ``ends`` and ``counts`` are those of
    :func:`~headrace.kafka.record_writing.cut`.
    """
    key_data, key_starts, key_sizes = keys
    value_data, value_starts, value_sizes = values
    at, batch, delta = 0, 1, 0
    for i in range(len(offsets)):
        key, key_size = key_starts[i], key_sizes[i]
        value, value_size = value_starts[i], value_sizes[i]
        first, fault = _PIECES * headers[i], faults[i]
        offset_size, timestamp_size = digits_of(offsets[i], 1), digits_of(timestamps[i], 1)
        message_size = len(where) + offset_size + message_ends[fault + 1] - message_ends[fault]
        # Attributes, no difference of time, key, value, headers; and then the difference of offsets.
        fixed = 2 + varint_size(key_size) + max(key_size, 0) + varint_size(value_size) + max(value_size, 0)
        fixed += piece_ends[first + _PIECES] - piece_ends[first]
        fixed += varint_size(offset_size) + offset_size + varint_size(timestamp_size) + timestamp_size
        fixed += varint_size(message_size) + message_size
        size = fixed + varint_size(delta)
        if delta and _HEAD_BYTES + at - ends[batch - 1] + varint_size(size) + size >= batch_bytes:
            ends[batch], counts[batch] = at, delta
            batch, delta = batch + 1, 0
            size = fixed + 1
        at = varint(size, out, at)
        out[at] = out[at + 1] = 0
        at = varint(delta, out, at + 2)
        at = copy(key_data, key, key + max(key_size, 0), out, varint(key_size, out, at))
        at = copy(value_data, value, value + max(value_size, 0), out, varint(value_size, out, at))
        at = copy(pieces, piece_ends[first + _OFFSET], piece_ends[first + _OFFSET + 1], out, at)
        at = _sized_number(offsets[i], offset_size, out, at)
        at = copy(pieces, piece_ends[first + _TIMESTAMP], piece_ends[first + _TIMESTAMP + 1], out, at)
        at = _sized_number(timestamps[i], timestamp_size, out, at)
        at = copy(pieces, piece_ends[first + _MESSAGE], piece_ends[first + _MESSAGE + 1], out, at)
        at = copy(where, 0, len(where), out, varint(message_size, out, at))
        at = write_number(offsets[i], offset_size, out, at)
        at = copy(messages, message_ends[fault], message_ends[fault + 1], out, at)
        at = copy(pieces, piece_ends[first + _REST], piece_ends[first + _REST + 1], out, at)
        delta += 1
    ends[batch], counts[batch] = at, delta
    return batch
