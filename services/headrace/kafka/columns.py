"""Consumed records of one partition as columns: their bytes as they came, and where each part of a record lies.

A fetched record set of format 2 is parsed by one compiled call that holds no lock and makes no object a record. It
accepts only what aiokafka reads in the same way; where it stops, aiokafka goes on.

https://kafka.apache.org/documentation/#recordbatch
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Final, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from headrace.kafka.interface import Discarded, FetchedRecord, Headers, Record
from headrace.kafka.packed_records import header_fields
from headrace.model.checksums import CRC32, CRC32C, checksum, checksums
from headrace.model.compiling import kernel
from headrace.model.utf8 import is_utf8

# The rows of a table. A length of -1 is None. The span of headers is what stands behind their number.
OFFSET: Final = 0
TIMESTAMP: Final = 1
KEY: Final = 2
KEY_LENGTH: Final = 3
VALUE: Final = 4
VALUE_LENGTH: Final = 5
HEADERS: Final = 6
HEADERS_LENGTH: Final = 7
SIZE: Final = 8
ROWS: Final = 9


class Columns(Sequence[Record]):
    """Consecutive records of a partition. As a sequence it makes a :class:`FetchedRecord` of each one asked for.

    ``data`` is uint8[bytes] and never written. ``table`` is int64[ROWS, n]: offset, timestamp (milliseconds since the
    Unix epoch), beginning and length of key, value and headers in ``data``, and the bytes of the three (see
    :func:`~headrace.kafka.interface.size_of`). ``discarded`` is by place: those values were too large to be kept.
    """

    __slots__ = ("data", "discarded", "partition", "table", "topic")

    def __init__(
        self,
        topic: str,
        partition: int,
        data: NDArray[np.uint8],
        table: NDArray[np.int64],
        discarded: dict[int, Discarded],
    ) -> None:
        self.topic = topic
        self.partition = partition
        data.setflags(write=False)
        self.data = data
        self.table = table
        self.discarded = discarded

    @classmethod
    def of(cls, records: Sequence[Record]) -> Columns:
        """The columns of ``records``, of which there is one at least; themselves if they are columns."""
        if isinstance(records, Columns):
            return records
        pieces: list[bytes] = []
        rows: list[list[int]] = []
        at = 0
        for record in records:
            headers, size = _packed_headers(tuple(record.headers)) if record.headers else (b"", 0)
            row = [record.offset, record.timestamp]
            for part in (record.key, record.value, headers):
                length = -1 if part is None else len(part)
                row += [at, length]
                if part:
                    pieces.append(part)
                    at += length
                    size += length
            rows.append([*row, size])
        discarded = {place: said for place, record in enumerate(records) if (said := record.discarded) is not None}
        data, table = np.frombuffer(b"".join(pieces), np.uint8), np.ascontiguousarray(np.array(rows, np.int64).T)
        return cls(records[0].topic, records[0].partition, data, table, discarded)

    @classmethod
    def joined(cls, parts: Sequence[Columns]) -> Columns:
        """One after the other in one; of each, only the bytes that its records lie in are copied."""
        if len(parts) == 1:
            return parts[0]
        tables, pieces, discarded = [], [], {}
        at = count = 0
        for part in parts:
            begin, end = part.bounds()
            table = part.table.copy()
            table[_BEGINNINGS] += at - begin
            tables.append(table)
            pieces.append(part.data[begin:end])
            discarded.update({count + place: said for place, said in part.discarded.items()})
            at += end - begin
            count += len(part)
        data = np.concatenate(pieces)
        return cls(parts[0].topic, parts[0].partition, data, np.concatenate(tables, axis=1), discarded)

    def bounds(self) -> tuple[int, int]:
        """Where the bytes of these records begin and end. Records lie in their order, and so do their parts."""
        return int(self.table[KEY, 0]), int(self.table[HEADERS, -1] + self.table[HEADERS_LENGTH, -1])

    def _row(self, row: int) -> NDArray[np.int64]:
        found: NDArray[np.int64] = self.table[row]
        return found

    @property
    def offsets(self) -> NDArray[np.int64]:
        return self._row(OFFSET)

    @property
    def timestamps(self) -> NDArray[np.int64]:
        return self._row(TIMESTAMP)

    @property
    def key_starts(self) -> NDArray[np.int64]:
        return self._row(KEY)

    @property
    def key_lengths(self) -> NDArray[np.int64]:
        return self._row(KEY_LENGTH)

    @property
    def value_starts(self) -> NDArray[np.int64]:
        return self._row(VALUE)

    @property
    def value_lengths(self) -> NDArray[np.int64]:
        return self._row(VALUE_LENGTH)

    @property
    def header_starts(self) -> NDArray[np.int64]:
        return self._row(HEADERS)

    @property
    def header_lengths(self) -> NDArray[np.int64]:
        return self._row(HEADERS_LENGTH)

    @property
    def sizes(self) -> NDArray[np.int64]:
        return self._row(SIZE)

    def crcs(self) -> NDArray[np.uint32]:
        """The CRC-32 of each value as it was sent, whether or not it was kept (see :func:`crc_of`)."""
        out = np.empty(len(self), np.uint32)
        checksums(self.data, self.value_starts, self.value_lengths, CRC32, out)
        for place, said in self.discarded.items():
            out[place] = said.crc
        return out

    def header_kinds(self) -> tuple[NDArray[np.int32], list[int]]:
        """For each record the index of its kind ``int32[n]``, and for each kind the place of one of its records.

        Records of a kind have the same headers. Two kinds may have the same ones if many others lie between.
        """
        kinds, first = np.zeros(len(self), np.int32), np.zeros(len(self), np.int64)
        count = _find_kinds(self.data, self.header_starts, self.header_lengths, kinds, first)
        return kinds, first[:count].tolist()

    def key(self, place: int) -> bytes | None:
        return self._part(KEY, place)

    def value(self, place: int) -> bytes | None:
        return self._part(VALUE, place)

    def values(self, places: NDArray[np.int64]) -> list[bytes | None]:
        """The values of the records at ``places``."""
        data: memoryview = self.data.data
        begins, lengths = self.table[VALUE : VALUE + 2, places].tolist()
        return [
            None if length < 0 else data[begin : begin + length].tobytes()
            for begin, length in zip(begins, lengths, strict=True)
        ]

    def headers(self, place: int) -> Headers:
        length = int(self.table[HEADERS_LENGTH, place])
        return _unpacked_headers(self._part(HEADERS, place) or b"") if length else ()

    def _part(self, row: int, place: int) -> bytes | None:
        begin, length = self.table[row : row + 2, place].tolist()
        return None if length < 0 else self.data[begin : begin + length].tobytes()

    def record(self, place: int) -> FetchedRecord:
        return next(self.at(np.array([place])))

    def at(self, places: NDArray[np.int64]) -> Iterator[FetchedRecord]:
        """The records at ``places``."""
        data: memoryview = self.data.data
        for place, row in zip(places.tolist(), self.table[:SIZE, places].T.tolist(), strict=True):
            offset, timestamp, key, key_length, value, value_length, headers, headers_length = row
            yield FetchedRecord(
                self.topic,
                self.partition,
                offset,
                timestamp,
                None if key_length < 0 else data[key : key + key_length].tobytes(),
                None if value_length < 0 else data[value : value + value_length].tobytes(),
                _unpacked_headers(data[headers : headers + headers_length].tobytes()) if headers_length else (),
                self.discarded.get(place),
            )

    def __len__(self) -> int:
        return int(self.table.shape[1])

    @overload
    def __getitem__(self, place: int) -> FetchedRecord: ...
    @overload
    def __getitem__(self, place: slice) -> Columns: ...
    def __getitem__(self, place: int | slice) -> FetchedRecord | Columns:
        """A record; or the columns of a range, which share these bytes."""
        if isinstance(place, int):
            return self.record(range(len(self))[place])
        begin, end, step = place.indices(len(self))
        assert step == 1, "records are consecutive"  # noqa: S101 - a fault of the program
        discarded = {at - begin: said for at, said in self.discarded.items() if begin <= at < end}
        return Columns(self.topic, self.partition, self.data, self.table[:, begin:end], discarded)

    def __iter__(self) -> Iterator[FetchedRecord]:
        return self.at(np.arange(len(self)))


_BEGINNINGS: Final = [KEY, VALUE, HEADERS]


@lru_cache(maxsize=64)
def _packed_headers(headers: tuple[tuple[str, bytes | None], ...]) -> tuple[bytes, int]:
    """Headers as they lie in a record, and by how much the bytes of their names and values are fewer: a number of at
    most 0.
    """
    packed = header_fields(headers)
    return packed, sum(len(name.encode()) + len(value or b"") for name, value in headers) - len(packed)


@lru_cache(maxsize=64)
def _unpacked_headers(packed: bytes) -> tuple[tuple[str, bytes | None], ...]:
    headers, at = [], 0
    while at < len(packed):
        name, at = _sized(packed, at)
        value, at = _sized(packed, at)
        headers.append(((name or b"").decode(), value))
    return tuple(headers)


def _sized(packed: bytes, at: int) -> tuple[bytes | None, int]:
    number = shift = 0
    while packed[at] & 0x80:
        number |= (packed[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
    number |= packed[at] << shift
    length = (number >> 1) ^ -(number & 1)
    return (None, at + 1) if length < 0 else (packed[at + 1 : at + 1 + length], at + 1 + length)


_COMPARED = 8
"""With so many kinds of headers before it those of a record are compared."""


@kernel
def _find_kinds(data, starts, lengths, kinds, first):  # type: ignore[no-untyped-def]
    count = 0
    for i in range(len(kinds)):
        found = -1
        for kind in range(count - 1, max(count - 1 - _COMPARED, -1), -1):
            other = first[kind]
            if lengths[other] != lengths[i]:
                continue
            equal = True
            for byte in range(lengths[i]):
                if data[starts[i] + byte] != data[starts[other] + byte]:
                    equal = False
                    break
            if equal:
                found = kind
                break
        if found < 0:
            found, first[count] = count, i
            count += 1
        kinds[i] = found
    return count


class Parsed(NamedTuple):
    """Where in a set the first batch begins that was not parsed, the records before it, and the offset behind these."""

    at: int
    columns: Columns
    position: int


def parse(name: tuple[str, int], raw: bytes, at: int, position: int, *, checked: bool = True) -> Parsed:
    """Parse the batches of ``raw`` from ``at`` on, up to the first one that is not plain. Records in front of the
    offset ``position`` are left out, and so are control batches.

    A plain batch is whole, of format 2, not compressed, and each field of it is as Kafka's clients write it. With
    ``checked`` its CRC-32C is right too.
    """
    data = np.frombuffer(raw, np.uint8)
    table = np.empty((ROWS, _room(data, at)), np.int64)
    count, at, position = _parse(data, at, position, checked, table)
    return Parsed(at, Columns(*name, data, table[:, :count], {}), position)


def warm() -> None:
    """Load the kernels from numba's cache, or compile them."""
    parse(("", 0), b"\0", 0, 0)
    columns = Columns.of([FetchedRecord("", 0, 0, 0, None, b"", ())])
    columns.crcs()
    columns.header_kinds()


_HEAD = 61
"""Bytes of a batch in front of its records."""
_LEAST_RECORD = 7
"""Bytes of a record of which each number has one digit."""
_AHEAD = 12
"""Bytes that a batch's length does not count."""
_FORMAT_AT, _CRC_AT, _ATTRIBUTES_AT, _LAST_AT, _TIME_AT, _MOST_TIME_AT, _COUNT_AT = 16, 17, 21, 23, 27, 35, 57
_FORMAT, _APPEND_TIME, _TRANSACTIONAL, _CONTROL = 2, 0x08, 0x10, 0x20
_FAR = 1 << 62


@kernel
def _big_endian(data, at, size):  # type: ignore[no-untyped-def]
    """The signed number in ``data[at:at + size]``."""
    value = np.int64(np.int8(data[at]))
    for i in range(at + 1, at + size):
        value = (value << 8) | np.int64(data[i])
    return value


@kernel
def _room(raw, at):  # type: ignore[no-untyped-def]
    """No fewer records than the plain batches from ``at`` on hold."""
    room = 0
    while at + _HEAD <= len(raw):
        length, count = _big_endian(raw, at + 8, 4), _big_endian(raw, at + _COUNT_AT, 4)
        if count < 0 or length < _HEAD - _AHEAD or count > length // _LEAST_RECORD:
            break
        room += count
        at += _AHEAD + length
    return room


@kernel
def _number(data, at, end):  # type: ignore[no-untyped-def]
    """The number of variable length at ``data[at]``, and where the next field begins: behind ``end`` if it is torn, or
    has more than nine bytes.
    """
    value = np.uint64(0)
    shift = np.uint64(0)
    while at < end and shift < 63:
        byte = np.uint64(data[at])
        at += 1
        value |= (byte & np.uint64(0x7F)) << shift
        if byte < 0x80:
            return np.int64(value >> np.uint64(1)) ^ -np.int64(value & np.uint64(1)), at
        shift += np.uint64(7)
    return np.int64(0), end + 1


@kernel
def _headers(data, at, end):  # type: ignore[no-untyped-def]
    """Go over headers and their number. Returns where they begin and end, and the bytes of names and values; they end
    behind ``end`` if they are not plain.
    """
    count, at = _number(data, at, end)
    begin, size = at, 0
    if count < 0:
        return begin, end + 1, size
    while count:
        count -= 1
        name, at = _number(data, at, end)
        if at > end or name < 0 or name > end - at or not is_utf8(data, at, at + name):
            return begin, end + 1, size
        at += name
        value, at = _number(data, at, end)
        if at > end or value > end - at:
            return begin, end + 1, size
        value = max(value, 0)
        at += value
        size += name + value
    return begin, at, size


@kernel
def _record(data, at, end, row, table):  # type: ignore[no-untyped-def]
    """Write the record at ``data[at]`` to a place of ``table``, its offset and time counted from those of the batch.

    Returns where the next record begins: behind ``end`` if this one is not plain.
    """
    size, at = _number(data, at, end)
    if at > end or size < 1 or size > end - at or data[at]:
        return end + 1
    stop = at + size
    time, at = _number(data, at + 1, stop)
    offset, at = _number(data, at, stop)
    key, at = _number(data, at, stop)
    if at > stop or key > stop - at or offset < 0 or time < -_FAR or time > _FAR:
        return end + 1
    key_at = at
    value, at = _number(data, at + max(key, 0), stop)
    if at > stop or value > stop - at:
        return end + 1
    value_at = at
    headers_at, at, beside = _headers(data, at + max(value, 0), stop)
    if at != stop:
        return end + 1
    table[OFFSET, row], table[TIMESTAMP, row] = offset, time
    table[KEY, row], table[KEY_LENGTH, row] = key_at, max(key, -1)
    table[VALUE, row], table[VALUE_LENGTH, row] = value_at, max(value, -1)
    table[HEADERS, row], table[HEADERS_LENGTH, row] = headers_at, stop - headers_at
    table[SIZE, row] = max(key, 0) + max(value, 0) + beside
    return stop


@kernel
def _parse(raw, at, position, checked, table):  # type: ignore[no-untyped-def]  # noqa: C901 - one loop
    """Fill ``table``. Returns the number of records, where the next batch begins, and the offset behind them."""
    count, room = 0, table.shape[1]
    while at + _HEAD <= len(raw):
        stop = at + _AHEAD + _big_endian(raw, at + 8, 4)
        attributes = _big_endian(raw, at + _ATTRIBUTES_AT, 2)
        if stop < at + _HEAD or stop > len(raw) or raw[at + _FORMAT_AT] != _FORMAT:
            break
        if attributes & ~(_APPEND_TIME | _TRANSACTIONAL | _CONTROL):
            break
        first, last = _big_endian(raw, at, 8), _big_endian(raw, at + _LAST_AT, 4)
        time, append_time = _big_endian(raw, at + _TIME_AT, 8), _big_endian(raw, at + _MOST_TIME_AT, 8)
        records = _big_endian(raw, at + _COUNT_AT, 4)
        if first < 0 or first > _FAR or last < 0 or time < -_FAR or time > _FAR or not 0 <= records <= room - count:
            break
        crc = np.uint32(_big_endian(raw, at + _CRC_AT, 4))
        if checked and checksum(raw, at + _ATTRIBUTES_AT, stop, CRC32C) != crc:
            break
        row, behind, i = count, position, at + _HEAD
        if attributes & _CONTROL:
            records, i = 0, stop
        while records and i <= stop:
            records -= 1
            i = _record(raw, i, stop, row, table)
            if i > stop:
                break
            if table[OFFSET, row] > last:
                i = stop + 1
                break
            table[OFFSET, row] += first
            table[TIMESTAMP, row] = append_time if attributes & _APPEND_TIME else time + table[TIMESTAMP, row]
            if table[OFFSET, row] >= behind:
                behind = table[OFFSET, row] + 1
                row += 1
        if i != stop:
            break
        count, position, at = row, first + last + 1, stop
    return count, at, position
