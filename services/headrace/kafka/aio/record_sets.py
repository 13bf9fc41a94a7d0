"""Reads the record sets of a fetch in steps: all of Kafka's formats, compressed or not.

aiokafka does this in C, a whole batch at a time, however large the batch grows: gzip packs up to 1,030 to 1, zstd
30,000 to 1. Here a compressed batch is read as a stream. A record that grows past a limit is handed over without its
value, with its size and CRC-32 alone. Names of headers may be any bytes.

A stream also holds the memory of its codec: 64 KiB for gzip, a block of at most 4 MiB for lz4, at most 128 MiB for
zstd, where the producer chose such a window, and for snappy a block of at most 22 times its packed size.

https://kafka.apache.org/documentation/#messageformat
"""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from collections.abc import Callable, Generator, Iterator
from typing import Final

import cramjam
import lz4.frame
import msgspec
import zstandard
from aiokafka.errors import CorruptRecordException, UnsupportedCodecError

from headrace.kafka.interface import Discarded, FetchedRecord, Headers, TopicPartition
from headrace.kafka.packed_records import HEAD

GZIP: Final = 1
SNAPPY: Final = 2
LZ4: Final = 3
ZSTD: Final = 4
CODEC_MASK: Final = 0x07

ZSTD_WINDOW = 1 << 27
"""The largest window, which is also the largest that zstd's own tools read unasked."""

# Snappy's densest element copies 64 bytes by three. A longer length is a lie, and would be allocated before it is seen.
_SNAPPY_RATIO = 22
_SNAPPY_LEAST = 64
_XERIAL = b"\x82SNAPPY\x00"
_XERIAL_HEAD = 16
_BLOCK = struct.Struct(">i")

PIECE = 1 << 20

Read = Callable[[int], bytes]
"""So many bytes at most, none at the end. Raises CorruptRecordException."""

_FAILURES = (OSError, EOFError, zlib.error, RuntimeError, ValueError, struct.error, zstandard.ZstdError)


def opened(codec: int, packed: bytes | memoryview) -> Read:
    """Return a function that reads the plain bytes of ``packed``. Raises UnsupportedCodecError for an unknown codec."""
    if codec == 0:
        return io.BytesIO(packed).read
    if codec == GZIP:
        return _checked(gzip.GzipFile(fileobj=io.BytesIO(packed)).read)
    if codec == SNAPPY:
        return _checked(_Pieces(_snappy(memoryview(packed))).read)
    if codec == LZ4:
        return _checked(lz4.frame.LZ4FrameFile(io.BytesIO(packed)).read)
    if codec == ZSTD:
        decompressor = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW)
        return _checked(decompressor.stream_reader(packed, read_across_frames=True).read)
    raise UnsupportedCodecError(f"Unknown compression codec {codec:#04x}")


def plain(codec: int, packed: bytes | memoryview, most: int) -> bytes | None:
    """The plain bytes of ``packed``, None when they are more than ``most``. Raises as :func:`opened` does."""
    read, pieces, size = opened(codec, packed), [], 0
    while piece := read(min(PIECE, most + 1 - size)):
        pieces.append(piece)
        size += len(piece)
        if size > most:
            return None
    return b"".join(pieces)


def _checked(read: Read) -> Read:
    def checked(most: int) -> bytes:
        try:
            return read(most)
        except _FAILURES as error:
            raise CorruptRecordException(f"A compressed batch can't be unpacked: {error}") from error

    return checked


def _snappy(packed: memoryview) -> Iterator[bytes]:
    """The blocks of xerial's framing, which Kafka's clients write; without the framing, the one block."""
    if bytes(packed[: len(_XERIAL)]) != _XERIAL:
        yield _snappy_block(packed)
        return
    at = _XERIAL_HEAD
    while at < len(packed):
        end = at + _BLOCK.size + _BLOCK.unpack_from(packed, at)[0]
        if not at + _BLOCK.size <= end <= len(packed):
            raise EOFError("a block of snappy is cut off")
        yield _snappy_block(packed[at + _BLOCK.size : end])
        at = end


def _snappy_block(block: memoryview) -> bytes:
    size = cramjam.snappy.decompress_raw_len(bytes(block[:10]))
    if size > max(_SNAPPY_LEAST, _SNAPPY_RATIO * len(block)):
        raise ValueError(f"{len(block)} bytes of snappy can't hold {size}")
    return bytes(cramjam.snappy.decompress_raw(bytes(block)))


class _Pieces:
    """Reads from pieces of any size."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._left = memoryview(b"")

    def read(self, most: int) -> bytes:
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._left = memoryview(piece)
        taken, self._left = bytes(self._left[:most]), self._left[most:]
        return taken


STEP = 32 << 20
"""After so many plain bytes a walk yields None, so that it can be put off."""

AHEAD = struct.Struct(">qi")  # a batch's first offset, and how many bytes follow
MAGIC_AT = 16
_LEGACY = struct.Struct(">qiIbb")  # offset, bytes that follow, CRC, format, attributes
_INT, _LONG = struct.Struct(">i"), struct.Struct(">q")
_APPEND_TIME, _TRANSACTIONAL, _CONTROL = 0x08, 0x10, 0x20
_FORMAT_2 = 2

Step = FetchedRecord | None


class Batch(msgspec.Struct, frozen=True):
    """A batch of format 2 (its head and its records, packed as they came), or a message of format 0 or 1."""

    raw: memoryview

    @property
    def legacy(self) -> bool:
        return self.raw[MAGIC_AT] < _FORMAT_2

    @property
    def attributes(self) -> int:
        if self.legacy:
            return self.raw[MAGIC_AT + 1]
        return int(HEAD.unpack_from(self.raw)[5])

    @property
    def codec(self) -> int:
        return self.attributes & CODEC_MASK

    @property
    def packed(self) -> memoryview:
        """The records of format 2, or the set of messages that is the value of a compressed one."""
        if not self.legacy:
            return self.raw[HEAD.size :]
        at = _LEGACY.size + (_LONG.size if self.raw[MAGIC_AT] else 0)
        at += _INT.size + max(0, _INT.unpack_from(self.raw, at)[0])
        return self.raw[at + _INT.size :]

    @property
    def next_offset(self) -> int:
        first = int(AHEAD.unpack_from(self.raw)[0])
        return first + 1 if self.legacy else first + int(HEAD.unpack_from(self.raw)[6]) + 1


def batches(raw: bytes, at: int = 0) -> Iterator[Batch]:
    """The batches of ``raw`` from ``at`` on, without a last one that is incomplete."""
    view = memoryview(raw)
    while at + MAGIC_AT < len(view):
        end = at + AHEAD.size + AHEAD.unpack_from(view, at)[1]
        if not at + MAGIC_AT < end <= len(view):
            return
        yield Batch(view[at:end])
        at = end


class Walk:
    """Yields the records of ``raw`` from ``offset`` on. ``position`` is behind the last record yielded, or behind the
    last batch.

    The caller reached ``offset`` through aiokafka, which leaves aborted batches out, so the first batch was committed.
    The walk ends before the next batch that belongs to a transaction.
    """

    def __init__(self, raw: bytes, partition: TopicPartition, offset: int, *, limit: int) -> None:
        self.position = offset
        self.steps = self._steps(raw, partition, limit)

    def _steps(self, raw: bytes, partition: TopicPartition, limit: int) -> Iterator[Step]:
        """Records, and None after each :data:`STEP`. Raises CorruptRecordException and UnsupportedCodecError."""
        found = False
        for batch in batches(raw):
            if not batch.legacy and (batch.attributes & _CONTROL or (batch.attributes & _TRANSACTIONAL and found)):
                return
            records = _legacy(batch, partition, limit) if batch.legacy else _records(batch, partition, limit)
            for record in records:
                if record is None or record.offset >= self.position:
                    if record is not None:
                        found, self.position = True, record.offset + 1
                    yield record
            self.position = max(self.position, batch.next_offset)


def _records(batch: Batch, partition: TopicPartition, limit: int) -> Iterator[Step]:
    head = HEAD.unpack_from(batch.raw)
    first_offset, first_time, last_time, count = head[0], head[7], head[8], head[12]
    source = _Source(opened(batch.codec, batch.packed))
    for _ in range(count):
        if source.is_due():
            yield None
        size = source.varint()
        whole = size <= limit
        record = _Source(_of(source.take(size))) if whole else source
        begun = record.taken
        record.take(1)  # attributes, of which none is in use
        timestamp, offset = first_time + record.varint(), first_offset + record.varint()
        if batch.attributes & _APPEND_TIME:
            timestamp = last_time
        place = (*partition, offset, timestamp)
        if whole:
            yield FetchedRecord(*place, record.sized(), record.sized(), _headers(record))
            continue
        key, key_crc = yield from _kept_or_skipped(record, record.varint(), limit)
        crc = yield from _skipped(record, record.varint())
        rest = begun + size - record.taken
        if rest < 0:
            raise CorruptRecordException(f"The record at {partition.topic}[{partition.partition}]@{offset} is torn")
        headers: Headers = ()
        if rest <= limit:
            headers = _headers(_Source(_of(record.take(rest))))
        else:
            yield from _skipped(record, rest)
        yield FetchedRecord(*place, key if key_crc is None else None, b"", headers, Discarded(size, crc))


def _headers(source: _Source) -> Headers:
    return tuple(
        ((source.sized() or b"").decode("utf-8", "backslashreplace"), source.sized()) for _ in range(source.varint())
    )


def _legacy(batch: Batch, partition: TopicPartition, limit: int) -> Iterator[Step]:
    """The message of format 0 or 1 itself, or the messages of the set in it, whose offsets count backwards from its
    own.
    """
    offset = int(AHEAD.unpack_from(batch.raw)[0])
    if not batch.codec:
        yield from _message(_Source(_of(bytes(batch.raw))), partition, limit, base=0, time=None)
        return
    base, time = 0, None
    if batch.raw[MAGIC_AT]:
        last = yield from _last_offset(_Source(opened(batch.codec, batch.packed)))
        base = offset - last
        if batch.attributes & _APPEND_TIME:
            time = _LONG.unpack_from(batch.raw, _LEGACY.size)[0]
    source = _Source(opened(batch.codec, batch.packed))
    while not source.ended():
        yield from _message(source, partition, limit, base=base, time=time)


def _last_offset(source: _Source) -> Generator[None, None, int]:
    last = 0
    while not source.ended():
        last, size = AHEAD.unpack(source.take(AHEAD.size))
        yield from _skipped(source, size)
    return last


def _message(source: _Source, partition: TopicPartition, limit: int, *, base: int, time: int | None) -> Iterator[Step]:
    if source.is_due():
        yield None
    offset, size, _, magic, _ = _LEGACY.unpack(source.take(_LEGACY.size))
    timestamp = source.int64() if magic else -1
    place = (*partition, base + offset, timestamp if time is None else time)
    key, key_crc = yield from _kept_or_skipped(source, source.int32(), limit)
    value, crc = yield from _kept_or_skipped(source, source.int32(), limit)
    said = None
    if key_crc is not None or crc is not None:
        said = Discarded(size, zlib.crc32(value or b"") if crc is None else crc)
        key, value = key if key_crc is None else None, b""
    yield FetchedRecord(*place, key, value, (), said)


def _kept_or_skipped(source: _Source, size: int, limit: int) -> Generator[None, None, tuple[bytes | None, int | None]]:
    """Return the bytes and None; for more than ``limit`` bytes None and their CRC-32; for a size below 0 None and
    None.
    """
    if size < 0:
        return None, None
    if size <= limit:
        return source.take(size), None
    return b"", (yield from _skipped(source, size))


def _skipped(source: _Source, size: int) -> Generator[None, None, int]:
    """Go over ``size`` bytes and return their CRC-32."""
    crc = 0
    while size > 0:
        piece = source.some(size)
        crc, size = zlib.crc32(piece, crc), size - len(piece)
        if source.is_due():
            yield None
    return crc


class _Source:
    """Reads numbers and bytes, and counts them."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._buffer = b""
        self._at = 0
        self.taken = 0
        self._due = STEP

    def is_due(self) -> bool:
        """Whether another :data:`STEP` bytes were read since this was last true."""
        if self.taken < self._due:
            return False
        self._due = self.taken + STEP
        return True

    def ended(self) -> bool:
        if self._at == len(self._buffer):
            self._buffer, self._at = self._read(PIECE), 0
        return not self._buffer

    def take(self, size: int) -> bytes:
        if size < 0:
            raise CorruptRecordException(f"A record has a field of {size} bytes")
        pieces = []
        while size:
            piece = self.some(size)
            size -= len(piece)
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def some(self, most: int) -> bytes:
        """Between one and ``most`` bytes: as many as can be had without copying."""
        if self.ended():
            raise CorruptRecordException("A batch ends inside a record")
        piece = self._buffer[self._at : self._at + most] if self._at or most < len(self._buffer) else self._buffer
        self._at += len(piece)
        self.taken += len(piece)
        return piece

    def varint(self) -> int:
        number = shift = 0
        while True:
            (byte,) = self.take(1)
            number |= (byte & 0x7F) << shift
            if byte < 0x80:  # the bit that says that more follows
                return (number >> 1) ^ -(number & 1)
            shift += 7
            if shift > 63:  # Kafka's numbers have 64 bits
                raise CorruptRecordException("A record has a number of more than 64 bits")

    def int32(self) -> int:
        return int(_INT.unpack(self.take(_INT.size))[0])

    def int64(self) -> int:
        return int(_LONG.unpack(self.take(_LONG.size))[0])

    def sized(self) -> bytes | None:
        size = self.varint()
        return None if size < 0 else self.take(size)


def _of(whole: bytes) -> Read:
    """Reads ``whole`` at once, without a copy."""
    left = [whole]
    return lambda _: left.pop() if left else b""
