"""A file's bytes, unpacked as a stream where they are packed: by what the bytes are, whatever the name says.

What is packed may be a bomb: a few kilobytes that grow to terabytes. Nothing is ever held whole, and what grows
further than any text does is refused.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import zstandard

from headrace.files import DatasetError

PIECE = 1 << 16

FREE_BYTES = 1 << 28
LARGEST_RATIO = 250
"""What was unpacked may be FREE_BYTES, and past that so many times its packed size."""

ZSTD_WINDOW = 1 << 27
# zstd packs 128 KiB into four bytes, so this much grows to 32 MiB at most.
_ZSTD_PIECE = 1 << 10
_LZMA_MEMORY = 1 << 28

_FAULTS = (OSError, EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError, zipfile.BadZipFile, RuntimeError)

_GZIP, _BZIP2, _XZ, _ZSTD = b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd"
_PACKED = (_GZIP, _BZIP2, _XZ, _ZSTD)

_NO_ROWS = {
    b"\xd0\xcf\x11\xe0": "an old Excel or Word file. Save it as CSV (UTF-8)",
    b"%PDF": "a PDF file. Save its texts as CSV or as lines",
    b"Obj\x01": "an Avro file. Convert it to JSON lines or Parquet",
    b"ORC": "an ORC file. Convert it to Parquet",
    b"7z\xbc\xaf": "a 7z archive. Unpack it first",
    b"Rar!": "a RAR archive. Unpack it first",
    b"\x04\x22\x4d\x18": "packed by lz4. Unpack it first, or pack it by gzip or zstd",
}


class Arriving(io.RawIOBase):
    """A stream that gives what is there now and waits for no second block. ``count`` bytes were read of it."""

    def __init__(self, stream: io.BufferedReader) -> None:
        self.count = 0
        self._stream = stream
        self._held = b""

    def begin(self) -> bytes:
        """The first bytes, as many as tell how it is packed; they are read once more."""
        while any(len(self._held) < len(magic) and magic.startswith(self._held) for magic in (*_PACKED, *_NO_ROWS)):
            piece = self._stream.read1(PIECE)
            if not piece:
                break
            self.count += len(piece)
            self._held += piece
        return self._held

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._held:
            self._held = self._stream.read1(len(buffer))
            self.count += len(self._held)
        size = min(len(buffer), len(self._held))
        buffer[:size], self._held = self._held[:size], self._held[size:]
        return size


def pieces(
    stream: BinaryIO, begin: bytes, name: str, packed_bytes: Callable[[], int], *, packed: bool = False
) -> Iterator[bytes]:
    """The plain bytes of ``stream``, whose first bytes are ``begin``; ``packed_bytes`` says how many were read of it.

    With ``packed`` they are unpacked already, and only measured.
    Raises DatasetError for what is damaged, was cut, grows without measure, or is of a kind that holds no rows.
    """
    for magic, what in _NO_ROWS.items():
        if begin.startswith(magic):
            raise DatasetError(f"{name}: is {what}")
    unpack = _plain if packed else _unpacker(begin)
    if unpack is None:
        yield from _plain(stream)
        return
    grown = 0
    try:
        for piece in unpack(stream):
            grown += len(piece)
            if grown > FREE_BYTES and grown > LARGEST_RATIO * packed_bytes():
                raise DatasetError(
                    f"{name}: grows to more than {LARGEST_RATIO} times its size, as no texts do. If you trust it, "
                    "unpack it yourself first"
                )
            yield piece
    except _FAULTS as error:
        raise DatasetError(f"{name}: can't be unpacked: it is damaged or was cut ({error})") from error


def open_zip(path: Path) -> BinaryIO:
    """The one file in the zip archive at ``path``. Raises DatasetError for other archives, and for workbooks."""
    archive = _archive(path)
    try:
        return archive.open(_member(archive, path))  # type: ignore[return-value]
    except (RuntimeError, NotImplementedError, zipfile.BadZipFile) as error:
        raise DatasetError(f"{path}: can't be unpacked ({error}). Unpack it first") from error


def _archive(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise DatasetError(f"{path}: can't be unpacked: it is damaged or was cut ({error})") from error


def _member(archive: zipfile.ZipFile, path: Path) -> zipfile.ZipInfo:
    names = archive.namelist()
    if "[Content_Types].xml" in names or "mimetype" in names:
        raise DatasetError(f"{path}: is a workbook or document, no table of texts. Save it as CSV (UTF-8)")
    files = [one for one in archive.infolist() if not one.is_dir() and not one.filename.startswith("__MACOSX/")]
    if len(files) != 1:
        raise DatasetError(f"{path}: holds {len(files):,} files, where one is expected. Unpack it first")
    return files[0]


def _unpacker(begin: bytes) -> Callable[[BinaryIO], Iterator[bytes]] | None:
    if begin.startswith(_GZIP):
        return lambda stream: _read(gzip.GzipFile(fileobj=stream))
    if begin.startswith(_BZIP2):
        return lambda stream: _read(bz2.BZ2File(stream))
    if begin.startswith(_XZ):
        return lambda stream: _read(lzma.LZMAFile(stream))
    if begin.startswith(_ZSTD):
        return _zstd
    return None


def _read(file: bz2.BZ2File | gzip.GzipFile | lzma.LZMAFile) -> Iterator[bytes]:
    # What is there now: whoever follows a log waits for no second block.
    while piece := file.read1(PIECE):
        yield piece


def _plain(stream: BinaryIO) -> Iterator[bytes]:
    while piece := stream.read(PIECE):
        yield piece


def _zstd(stream: BinaryIO) -> Iterator[bytes]:
    decompressor = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW)
    frame = None
    while packed := stream.read(_ZSTD_PIECE):
        while packed:
            # The library reads a file that was cut to its end without a word; a frame says whether it is whole.
            frame = decompressor.decompressobj() if frame is None else frame
            plain = frame.decompress(packed)
            if plain:
                yield plain
            packed = frame.unused_data if frame.eof else b""
            if frame.eof:
                frame = None
    if frame is not None:
        raise EOFError("the last frame has no end")
