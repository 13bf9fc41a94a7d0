"""From the bytes of a file to lines of text: unpacking, decoding, and limits.

The first bytes of a file tell how it is packed, whatever its name says. A few kilobytes may grow to terabytes (a bomb),
so no file is held whole, and a file that grows further than texts do is refused.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import zstandard

from headrace.files import DatasetError

PIECE = 1 << 16

FREE_BYTES = 1 << 28
LARGEST_RATIO = 250
"""A file may unpack to FREE_BYTES, and beyond that to so many times its packed size."""

ZSTD_WINDOW = 1 << 27
# zstd packs 128 KiB into four bytes, so this much grows to 32 MiB at most.
_ZSTD_PIECE = 1 << 10
_XZ_MEMORY = 1 << 28
"""xz -9 needs 65 MiB to unpack, and a header may ask for 4 GiB."""

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
    b"PK\x05\x06": "a zip archive with no file in it",
    b"ARROW1": "an Arrow (Feather) file. Convert it to Parquet",
    b"\x89HDF": "an HDF5 file. Convert it to Parquet",
    b"\x93NUMPY": "a NumPy file. Save its texts as CSV or JSON lines",
    b"SQLite format 3\0": "an SQLite database. Export the table as CSV",
    b"\x89PNG": "a picture, which holds no rows",
    b"version https://git-lfs.github.com/spec/": "a pointer of Git LFS and not the file: git lfs pull brings it",
}
_PACKED_TWICE = (*_PACKED, b"PK\x03\x04", b"PAR1")
_TAR_AT, _TAR = 257, b"ustar"


class Arriving(io.RawIOBase):
    """A stream that returns the bytes that are there now, without waiting for a second block. ``count`` bytes were
    read.
    """

    def __init__(self, stream: io.BufferedReader) -> None:
        self.count = 0
        self._stream = stream
        self._held = b""

    def begin(self) -> bytes:
        """The first bytes, enough to tell how it is packed. They are read again later."""
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
    """The plain bytes of ``stream``, whose first bytes are ``begin``. ``packed_bytes`` returns how many packed bytes
    were read.

    With ``packed`` the stream is unpacked already and is only measured. Raises DatasetError for a file that is damaged,
    truncated, a bomb, or of a kind without rows.
    """
    _refuse(begin, name)
    unpack = _plain if packed else _unpacker(begin)
    if unpack is None:
        first = next(_plain(stream), b"")
        _refuse(first, name)
        yield first
        yield from _plain(stream)
        return
    grown = 0
    try:
        for piece in unpack(stream):
            if not grown:
                _refuse(piece, name)
                if piece.startswith(_PACKED_TWICE):
                    raise DatasetError(f"{name}: what is packed in it is packed itself. Unpack it once first")
            grown += len(piece)
            if grown > FREE_BYTES and grown > LARGEST_RATIO * packed_bytes():
                raise DatasetError(
                    f"{name}: grows to more than {LARGEST_RATIO} times its size, as no texts do. If you trust it, "
                    "unpack it yourself first"
                )
            yield piece
    except _FAULTS as error:
        raise DatasetError(f"{name}: can't be unpacked: it is damaged or was cut ({error})") from error


def _refuse(begin: bytes, name: str) -> None:
    for magic, what in _NO_ROWS.items():
        if begin.startswith(magic):
            raise DatasetError(f"{name}: is {what}")
    if begin.startswith(_TAR, _TAR_AT):
        raise DatasetError(f"{name}: is a tar archive. Unpack it first")


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
    files = [one for one in archive.infolist() if not one.is_dir() and not _of_macos(one.filename)]
    if len(files) != 1:
        found = f"{len(files):,} files" if files else "no file"
        raise DatasetError(f"{path}: holds {found}, where one is expected. Unpack it first")
    return files[0]


def _of_macos(member: str) -> bool:
    return member.startswith("__MACOSX/") or member.rpartition("/")[2] == ".DS_Store"


def _unpacker(begin: bytes) -> Callable[[BinaryIO], Iterator[bytes]] | None:
    if begin.startswith(_GZIP):
        return lambda stream: _read(gzip.GzipFile(fileobj=stream))
    if begin.startswith(_BZIP2):
        return lambda stream: _read(bz2.BZ2File(stream))
    if begin.startswith(_XZ):
        return _xz
    if begin.startswith(_ZSTD):
        return _zstd
    return None


def _read(file: bz2.BZ2File | gzip.GzipFile) -> Iterator[bytes]:
    # The bytes that are there now, because a reader that follows a log must not wait for a second block.
    while piece := file.read1(PIECE):
        yield piece


def _plain(stream: BinaryIO) -> Iterator[bytes]:
    while piece := stream.read(PIECE):
        yield piece


def _xz(stream: BinaryIO) -> Iterator[bytes]:
    unpacker = None
    while packed := stream.read(PIECE):
        while True:
            if unpacker is None:
                # Between two streams there may be padding.
                packed = packed.lstrip(b"\0")
                if not packed:
                    break
                unpacker = lzma.LZMADecompressor(memlimit=_XZ_MEMORY)
            plain = unpacker.decompress(packed, PIECE)
            if plain:
                yield plain
            if unpacker.eof:
                packed, unpacker = unpacker.unused_data, None
            elif unpacker.needs_input:
                break
            else:
                packed = b""
    if unpacker is not None:
        raise EOFError("the last stream has no end")


def _zstd(stream: BinaryIO) -> Iterator[bytes]:
    decompressor = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW)
    frame = None
    while packed := stream.read(_ZSTD_PIECE):
        while packed:
            # The library does not report a truncated file, but the frame knows whether it is complete.
            frame = decompressor.decompressobj() if frame is None else frame
            plain = frame.decompress(packed)
            if plain:
                yield plain
            packed = frame.unused_data if frame.eof else b""
            if frame.eof:
                frame = None
    if frame is not None:
        raise EOFError("the last frame has no end")


MOST_CHARACTERS = 1 << 24
"""The longest line and row: far longer than any text, and a bound of the memory that a hostile file can take."""

FALLBACK = "cp1252"
UTF8 = "utf-8"

_MARKS = (
    (codecs.BOM_UTF8, UTF8),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
ALLOWED = "UTF-8, UTF-16 and UTF-32 are found out; --encoding names another one, or save it as UTF-8"


class Found(NamedTuple):
    """An encoding, and a remark about it, which is empty for UTF-8."""

    encoding: str
    said: str = ""


def checked_encoding(name: str) -> str:
    """``name``, if it is an encoding of text. Raises DatasetError otherwise."""
    try:
        # Python knows some that are no text encodings, such as hex, and some that can't be read in pieces.
        io.TextIOWrapper(io.BytesIO(), encoding=name)
        codecs.getincrementaldecoder(name)(errors="strict").decode(b"", final=True)
        return codecs.lookup(name).name
    except (LookupError, ValueError) as error:
        raise DatasetError(
            f"--encoding {name}: there is no such encoding of texts; utf-8, utf-16, cp1252, latin-1, shift_jis, "
            "gb18030 and koi8-r are some"
        ) from error


def by_mark(begin: bytes) -> Found | None:
    """The encoding by the byte order mark, or, for UTF-16 without one, by its zero bytes."""
    for mark, encoding in _MARKS:
        if begin.startswith(mark):
            return Found(encoding, "" if encoding == UTF8 else f"encoding {encoding.upper()}")
    sample = begin[: len(begin) // 2 * 2]
    odd, even = sample[1::2].count(0), sample[::2].count(0)
    encoding = "utf-16-le" if odd > even else "utf-16-be"
    many = len(sample) >= 4 and max(odd, even) * 3 > len(sample) // 2 and min(odd, even) * 20 <= max(odd, even)
    if many or _few_zeros_of_utf16(sample, odd, even, encoding):
        return Found(encoding, f"encoding {encoding.upper()}, though it has no byte order mark")
    return None


def _few_zeros_of_utf16(sample: bytes, odd: int, even: int, encoding: str) -> bool:
    """Whether ``sample`` is UTF-16 of a script such as Han, where only blanks, marks and line ends have a zero."""
    if max(odd, even) < 4 or min(odd, even) or _readable(sample, UTF8):
        return False
    return _readable(sample, encoding)


def _readable(sample: bytes, encoding: str) -> bool:
    try:
        codecs.getincrementaldecoder(encoding)().decode(sample)
    except UnicodeDecodeError:
        return False
    return True


def by_content(pieces: Callable[[], Iterable[bytes]], name: str) -> Found:
    """UTF-8 if all ``pieces`` are, otherwise the fallback. Raises DatasetError when neither fits."""
    line = _fault(pieces(), UTF8)
    if line is None:
        return Found(UTF8)
    if _fault(pieces(), FALLBACK) is not None:
        raise DatasetError(f"{name} line {line}: is neither UTF-8 nor Windows-1252. {ALLOWED}")
    return Found(
        FALLBACK,
        f"WARNING: line {line} is not UTF-8, so all is read as Windows-1252 (cp1252). Look whether letters with accents"
        " come out right; if not, name the encoding by --encoding, or save it as UTF-8",
    )


def _fault(pieces: Iterable[bytes], encoding: str) -> int | None:
    """The line of the first byte that is invalid in ``encoding``."""
    decoder = codecs.getincrementaldecoder(encoding)()
    line = 1
    try:
        for piece in pieces:
            decoder.decode(piece)
            line += piece.count(b"\n")
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        return line + error.object[: error.start].count(b"\n")
    return None


def decoded(pieces: Iterable[bytes], encoding: str, name: str) -> Iterator[str]:
    """The text of ``pieces`` without a byte order mark. Raises DatasetError after yielding the text before a fault."""
    decoder = codecs.getincrementaldecoder(encoding)()
    begun = False
    line = 1
    for piece in chain(pieces, (None,)):
        fault = None
        try:
            text = decoder.decode(piece or b"", final=piece is None)
        except UnicodeDecodeError as error:
            fault = error
            text = error.object[: error.start].decode(encoding, "ignore")
        except UnicodeError as error:
            raise DatasetError(f"{name}: is not {encoding.upper()} ({error}). {ALLOWED}") from error
        if text and not begun:
            begun = True
            text = text.removeprefix("\ufeff")
        if text:
            yield text
            line += text.count("\n")
        if fault is not None:
            raise DatasetError(f"{name} line {line}: is not {encoding.upper()} ({fault.reason}). {ALLOWED}") from fault


def lines_of(texts: Iterable[str], name: str) -> Iterator[str]:
    """The lines of ``texts`` with their ends, which are LF, CR LF or CR alone.

    Raises DatasetError for a line that holds NUL or is longer than MOST_CHARACTERS.
    """
    number = 0
    held: list[str] = []
    size = 0
    for text in texts:
        size += len(text)
        if "\n" not in text and "\r" not in text:
            held.append(text)
            if size > MOST_CHARACTERS:
                break
            continue
        lines = list(io.StringIO("".join((*held, text)), newline=""))
        # A CR at the end may be half of CR LF.
        held = [] if lines[-1].endswith("\n") else [lines.pop()]
        size = sum(map(len, held))
        for line in lines:
            number += 1
            yield _whole(line, name, number)
    if held:
        yield _whole("".join(held), name, number + 1)


def _whole(line: str, name: str, number: int) -> str:
    if "\0" in line:
        raise DatasetError(
            f"{name} line {number}: holds NUL, which no text has. Is it a binary file, or of another encoding? "
            f"{ALLOWED}"
        )
    if len(line) > MOST_CHARACTERS:
        raise DatasetError(
            f"{name} line {number}: is longer than {MOST_CHARACTERS:,} characters, the most that is read"
        )
    return line
