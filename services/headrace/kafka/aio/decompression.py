"""Decompressing record batches as streams, so that what they grow to never has to be in memory.

aiokafka unpacks a batch whole, and gzip packs up to 1,030 to 1, zstd 30,000 to 1. What a stream holds beside what was
read of it is bounded by its codec: 64 KiB for gzip, a block of at most 4 MiB for lz4, 128 MiB for zstd where the
producer asked for such a window, and for snappy a block, which is at most 22 times its packed size.
"""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Final

import cramjam
import lz4.frame
import zstandard
from aiokafka.errors import CorruptRecordException, UnsupportedCodecError

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
    """What reads the plain bytes of ``packed``. Raises UnsupportedCodecError for a codec that Kafka doesn't have."""
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
    """The blocks of the framing of xerial, which Kafka's clients write, or the one block that there is without it."""
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
