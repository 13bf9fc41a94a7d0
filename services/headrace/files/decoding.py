"""From bytes to lines of text: which encoding a file has, and where a line ends."""

from __future__ import annotations

import codecs
import io
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import NamedTuple

from headrace.files import DatasetError

MOST_CHARACTERS = 1 << 24
"""Of a line, and of a row: far above any text, and what a hostile file may take of the memory."""

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
    """An encoding, and what is to be said of it: nothing of UTF-8."""

    encoding: str
    said: str = ""


def checked_encoding(name: str) -> str:
    """``name`` when it is an encoding of text. Raises DatasetError."""
    try:
        # Some are known and no encodings of texts, such as hex; others can't be read by pieces.
        io.TextIOWrapper(io.BytesIO(), encoding=name)
        codecs.getincrementaldecoder(name)(errors="strict").decode(b"", final=True)
        return codecs.lookup(name).name
    except (LookupError, ValueError) as error:
        raise DatasetError(
            f"--encoding {name}: there is no such encoding of texts; utf-8, utf-16, cp1252, latin-1, shift_jis, "
            "gb18030 and koi8-r are some"
        ) from error


def by_mark(begin: bytes) -> Found | None:
    """The encoding that a byte order mark names, or that the zeros of UTF-16 without one show."""
    for mark, encoding in _MARKS:
        if begin.startswith(mark):
            return Found(encoding, "" if encoding == UTF8 else f"encoding {encoding.upper()}")
    sample = begin[: len(begin) // 2 * 2]
    odd, even = sample[1::2].count(0), sample[::2].count(0)
    if len(sample) >= 4 and max(odd, even) * 3 > len(sample) // 2 and min(odd, even) * 20 <= max(odd, even):
        encoding = "utf-16-le" if odd > even else "utf-16-be"
        return Found(encoding, f"encoding {encoding.upper()}, though it has no byte order mark")
    return None


def by_content(pieces: Callable[[], Iterable[bytes]], name: str) -> Found:
    """UTF-8 where all of ``pieces`` is, else the fallback. Raises DatasetError when it is neither of them."""
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
    """The line of the first byte that ``encoding`` doesn't have."""
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
    """The text of ``pieces``, without a byte order mark. Raises DatasetError behind all the text before the fault."""
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
