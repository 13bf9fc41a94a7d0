"""The record set of one reply in columns, where kernels can parse it; where they can't, aiokafka reads on.

A compressed batch is unpacked whole, within the limit, and parsed as if it had never been compressed.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, Final

from aiokafka.errors import CorruptRecordException, UnsupportedCodecError
from aiokafka.record.default_records import DefaultRecordBatch

from headrace.kafka.aio.record_sets import AHEAD, CODEC_MASK, PIECE, Batch, batches, plain
from headrace.kafka.columns import Columns, parse
from headrace.kafka.interface import FetchedRecord, Record
from headrace.kafka.packed_records import HEAD

Read = Callable[[bytes], Iterator[FetchedRecord]]
"""Read the records of these batches through aiokafka, up to the first that it can't unpack."""

_MOST: Final = 1 << 30
"""A batch that grows past it has no length that its head could say."""


class FetchedColumns:
    """Takes the place of ``getall`` of aiokafka's FetchResult ``fetched``, whose record set is ``raw``.

    The partition has no aborted transaction there. ``unreadable`` has the partition's name when ``read`` met a record
    that aiokafka can't unpack, or a batch of more than ``limit`` plain bytes; the set ends in front of it.
    """

    def __init__(self, name: Any, fetched: Any, raw: bytes, read: Read, unreadable: dict[Any, int], limit: int) -> None:
        self._name = name
        self._fetched = fetched
        self._chunk = fetched._partition_records  # noqa: SLF001 - aiokafka offers no other way
        # Another such pair.
        self._chunk._records_iterator = None  # noqa: SLF001
        self._raw = raw
        self._read = read
        self._unreadable = unreadable
        self._limit = limit
        self._at = 0
        self._ended = False
        self._ready: Columns | None = None
        self._behind = 0
        """The offset behind ``_ready``."""
        self._records: Iterator[FetchedRecord] | None = None

    def getall(self, max_records: int | None = None) -> Sequence[Record]:
        """At most ``max_records`` records, which follow each other: columns or a list; none at the end."""
        fetched = self._fetched
        found: Sequence[Record] = ()
        try:
            if fetched.check_assignment(self._name) and fetched.has_more():
                while not found and not self._ended:
                    found = self._next(max_records)
                fetched._update_position()  # noqa: SLF001
                if self._ended:
                    fetched._partition_records = None  # noqa: SLF001
        except BaseException:
            self._ended = True
            raise
        if not fetched.has_more():
            # Two objects that hold each other would keep the record set until a garbage collection.
            del fetched.getall
        return found

    def _next(self, most: int | None) -> Sequence[Record]:
        if self._ready:
            found, self._ready = self._ready[:most], self._ready[len(self._ready) if most is None else most :]
            self._chunk.next_fetch_offset = int(found.offsets[-1]) + 1 if self._ready else self._behind
            self._ended = not self._ready and self._at == len(self._raw)
            return found
        if self._records is not None:
            records = list(islice(self._records, most))
            if most is None or len(records) < most:
                self._records = None
                self._ended = self._name in self._unreadable or self._at == len(self._raw)
            return records
        self._parse()
        return ()

    def _parse(self) -> None:
        """Make the next batches ready. Everything before them was handed over."""
        position = self._chunk.next_fetch_offset
        at, columns, behind = parse(self._name, self._raw, self._at, position)
        if at == self._at:
            unpacked, ends, places = self._unpacked()
            if ends:
                end, columns, behind = parse(self._name, unpacked, 0, position, checked=False)
                at = places[bisect_left(ends, end)] if end else at
        if at > self._at:
            self._at, self._ready, self._behind = at, columns, behind
            if not columns:
                self._chunk.next_fetch_offset = behind
                self._ended = at == len(self._raw)
        elif raw := self._odd():
            self._at += len(raw)
            self._records = self._read(raw)
        else:
            self._ended = True

    def _odd(self) -> bytes:
        """The next batch, and behind a message of an older format all that follow."""
        end = self._at
        for batch in batches(self._raw, end):
            if end > self._at and (not batch.legacy or batch.codec):
                break
            end += len(batch.raw)
            if not batch.legacy or batch.codec:
                break
        return self._raw[self._at : end]

    def _unpacked(self) -> tuple[bytes, list[int], list[int]]:
        """The next compressed batches, as if they had never been compressed; and where each ends there, and in the set.

        There is none if the next batch is not compressed, or can't be unpacked within the limit.
        """
        pieces: list[bytes] = []
        ends: list[int] = []
        places: list[int] = []
        size, at = 0, self._at
        for batch in batches(self._raw, at):
            if size >= PIECE or (records := self._plain(batch)) is None:
                break
            head = list(HEAD.unpack_from(batch.raw))
            head[1], head[5] = HEAD.size - AHEAD.size + len(records), head[5] & ~CODEC_MASK
            pieces += HEAD.pack(*head), records
            size, at = size + HEAD.size + len(records), at + len(batch.raw)
            ends.append(size)
            places.append(at)
        return b"".join(pieces), ends, places

    def _plain(self, batch: Batch) -> bytes | None:
        if batch.legacy or not batch.codec or not DefaultRecordBatch(bytes(batch.raw)).validate_crc():
            return None
        try:
            return plain(batch.codec, batch.packed, min(self._limit, _MOST))
        except (CorruptRecordException, UnsupportedCodecError):
            return None
