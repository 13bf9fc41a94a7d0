"""Rows of any file: JSON lines, a JSON array, CSV with any delimiter, Parquet; packed or not, in any encoding.

A file's name says what the file is (.jsonl, .csv, .tsv, .parquet, with .gz, .zst, .bz2, .xz or .zip behind it or not).
Where the name says nothing, the file's beginning does. Delimiter and encoding are detected, and reported where they are
unusual. Strangers write these files, so nothing but the row that is read is held in memory.
"""

from __future__ import annotations

import enum
import io
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from headrace.files import DatasetError, InputError
from headrace.files.decoding import (
    Arriving,
    Found,
    by_content,
    by_mark,
    checked_encoding,
    decoded,
    lines_of,
    open_zip,
    pieces,
)
from headrace.files.formats import DELIMITERS, Delimited, Parquet, checked_delimiter, json_rows, place
from headrace.files.spreadsheet import ESCAPED, as_written

_PACKED = {".gz", ".gzip", ".zst", ".zstd", ".bz2", ".xz", ".zip"}
_ZIP = b"PK\x03\x04"
_PARQUET = b"PAR1"
# A path has lost one of the slashes.
_URL = re.compile(r"([a-z][a-z0-9+.-]+):/")


class Kind(enum.StrEnum):
    """What a file's rows are."""

    JSON = "json"
    CSV = "csv"
    PARQUET = "parquet"
    TEXT = "text"
    """A text a line, in the column text."""


_KINDS = {
    **dict.fromkeys((".jsonl", ".ndjson", ".json", ".jsonlines", ".geojsonl"), Kind.JSON),
    **dict.fromkeys((".csv", ".tsv", ".tab", ".psv"), Kind.CSV),
    **dict.fromkeys((".parquet", ".pq", ".parq"), Kind.PARQUET),
}
_PLAIN = {".txt", ".text", ".log"}
_REFUSED = {".xlsx": "an Excel workbook", ".xls": "an Excel workbook", ".ods": "a workbook", ".numbers": "a workbook"}


class Reading(msgspec.Struct, frozen=True):
    """How a file is to be read; None is found out."""

    delimiter: str | None = None
    encoding: str | None = None


class Row(NamedTuple):
    """``where`` names the file and the line that the row begins in; ``values`` by column, of CSV all strings."""

    where: str
    values: dict[str, object]

    def string(self, column: str, *, numbers: bool = False) -> str:
        """The value of ``column``, "" for none. Raises DatasetError for what is no string, nor one of ``numbers``."""
        value = self.values.get(column)
        if value is None:
            return ""
        if isinstance(value, str):
            return value
        if numbers and isinstance(value, int):
            return str(value)
        allowed = "a string or a whole number" if numbers else "a string"
        raise DatasetError(f"{self.where}, {column!r}: must be {allowed}, not {type(value).__name__}")


def kind_of(name: str) -> Kind | None:
    """What ``name`` says of the kind, None for nothing. Raises DatasetError for a kind that holds no rows."""
    suffixes = [suffix.lower() for suffix in Path(name).suffixes]
    while suffixes and suffixes[-1] in _PACKED:
        suffixes.pop()
    last = suffixes[-1] if suffixes else ""
    if last in _REFUSED:
        raise DatasetError(f"{name}: is {_REFUSED[last]}. Save it as CSV (UTF-8)")
    return Kind.TEXT if last in _PLAIN else _KINDS.get(last)


def find_kind(path: Path) -> Kind | None:
    """What the rows of ``path`` are, by its name and else by its beginning; None for what may be CSV or bare texts.

    Raises DatasetError for what can't be read.
    """
    check_file(path)
    return _kind_by_mark(path) or kind_of(str(path)) or _kind_by_content(_File(path))


def check_file(path: Path) -> None:
    """Raise InputError for what is no readable file: missing, a folder, a pipe. Opens no pipe, which waits."""
    if (scheme := _URL.match(str(path))) and not path.exists():
        raise InputError(f"{path}: {scheme[1]} addresses are not read here. Download it, and name the file")
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise InputError(f"{path}: is a folder; name a file in it")
        if not stat.S_ISREG(mode):
            raise InputError(f"{path}: is a pipe or device, which can be read only once. Write it to a file first")
        with path.open("rb"):
            pass
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: can't be read: {getattr(error, 'strerror', None) or error}") from error


def read_file(
    path: Path,
    columns: Sequence[str] | None,
    *,
    also: Sequence[str] = (),
    kind: Kind | None = None,
    reading: Reading = Reading(),  # noqa: B008 - frozen
    tell: Callable[[str], None] = lambda _: None,
) -> Iterator[Row]:
    """The rows of ``path`` with ``columns``, all of which have to be there, and those of ``also`` that are.

    With None every column is taken. What may be a table is read as one, unless ``kind`` is given. ``tell`` is told what
    was found out that is not usual. Raises DatasetError before the first row for a file that is missing or of another
    kind, and at some row for what is broken there.
    """
    check_file(path)
    name = str(path)
    try:
        source = _File(path)
        kind = _kind_by_mark(path) or kind or _kind_of_table(name) or _kind_by_content(source) or Kind.CSV
        if kind is Kind.PARQUET:
            if _kind_by_mark(path) is None:
                next(source.pieces(), b"")  # says it where it is packed, or something else
            yield from _parquet(path, columns, also)
            return
        found = _encoding(source, name, reading)
        texts = decoded(source.pieces(), found.encoding, name)
        yield from _rows(texts, name, kind, columns, also, reading, found, tell)
    except OSError as error:
        raise DatasetError(f"{name}: can't be read: {error.strerror or error}") from error


def read_stream(
    stream: io.BufferedReader,
    name: str,
    columns: Sequence[str] | None,
    *,
    also: Sequence[str] = (),
    kind: Kind | None = None,
    reading: Reading = Reading(),  # noqa: B008 - frozen
    tell: Callable[[str], None] = lambda _: None,
) -> Iterator[Row]:
    """The rows of a stream that may go on for ever: each when its line is there. Raises DatasetError, as read_file."""
    try:
        arriving = Arriving(stream)
        begin = arriving.begin()
        if begin.startswith((_PARQUET, _ZIP)):
            what = "Parquet" if begin.startswith(_PARQUET) else "a zip archive or a workbook"
            raise DatasetError(f"{name}: is {what}, which can't be read from a stream; name the file")
        walk = pieces(arriving, begin, name, lambda: arriving.count)  # type: ignore[arg-type]
        first = next(walk, b"")
        kind = kind or _kind_of_begin(first) or Kind.CSV
        # UTF-16's first two bytes may come alone; whoever writes a line writes more.
        found = Found(checked_encoding(reading.encoding)) if reading.encoding else by_mark(first)
        if found is None:
            head, _, _ = first.rpartition(b"\n")
            found = by_content(lambda: [head], name)
        texts = decoded(_joined(first, walk), found.encoding, name)
        yield from _rows(texts, name, kind, columns, also, reading, found, tell)
    except OSError as error:
        raise DatasetError(f"{name}: can't be read: {error.strerror or error}") from error


class _File:
    """A file whose plain bytes can be read more than once."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def pieces(self) -> Iterator[bytes]:
        with self._path.open("rb") as packed:
            begin = packed.peek(8)[:8]
            if begin.startswith(_ZIP):
                size = self._path.stat().st_size
                with open_zip(self._path) as member:
                    yield from pieces(member, b"", str(self._path), lambda: size, packed=True)
            else:
                yield from pieces(packed, begin, str(self._path), packed.tell)


def _joined(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _kind_of_table(name: str) -> Kind | None:
    # Tables are called .txt too, and a label stands beside each text.
    kind = kind_of(name)
    return None if kind is Kind.TEXT else kind


def _kind_by_mark(path: Path) -> Kind | None:
    """Parquet, which no table of text begins like, whatever the name says."""
    with path.open("rb") as file:
        return Kind.PARQUET if file.read(len(_PARQUET)) == _PARQUET else None


def _kind_by_content(source: _File) -> Kind | None:
    return _kind_of_begin(next(source.pieces(), b""))


def _kind_of_begin(begin: bytes) -> Kind | None:
    if begin.startswith(_PARQUET):
        return Kind.PARQUET
    text = begin.decode((by_mark(begin) or Found("utf-8")).encoding, "ignore").lstrip("\ufeff \t\r\n")
    return Kind.JSON if text.startswith(("{", "[")) else None


def _encoding(source: _File, name: str, reading: Reading) -> Found:
    if reading.encoding is not None:
        return Found(checked_encoding(reading.encoding))
    return by_mark(next(source.pieces(), b"")) or by_content(source.pieces, name)


def _rows(
    texts: Iterator[str],
    name: str,
    kind: Kind,
    columns: Sequence[str] | None,
    also: Sequence[str],
    reading: Reading,
    found: Found,
    tell: Callable[[str], None],
) -> Iterator[Row]:
    said = [found.said] if found.said else []
    if kind is Kind.CSV:
        delimiter = None if reading.delimiter is None else checked_delimiter(reading.delimiter)
        table = Delimited(lines_of(texts, name), name, columns or (), delimiter)
        if table.delimiter != ("\t" if ".tsv" in name else ",") and delimiter is None:
            said.insert(0, f"delimiter {DELIMITERS[table.delimiter]}")
        places = {column: place(name, table.header, column) for column in _distinct(columns or table.header)}
        places |= {column: table.header.index(column) for column in also if column in table.header}
        # An export of ours says which of its cells begin with an apostrophe that is no part of the text.
        if table.header.count(ESCAPED) == 1:
            places.setdefault(ESCAPED, table.header.index(ESCAPED))
        rows: Iterator[tuple[int, dict[str, object]]] = (
            (number, as_written(values)) for number, values in table.rows(places)
        )
    elif kind is Kind.JSON:
        rows = json_rows(texts, name, columns, also)
    else:
        rows = ((number, {"text": line.rstrip("\r\n")}) for number, line in enumerate(lines_of(texts, name), 1))
    if said:
        tell(f"{name}: {', '.join(said)}")
    for number, values in rows:
        yield Row(f"{name} line {number}", values)


def _parquet(path: Path, columns: Sequence[str] | None, also: Sequence[str]) -> Iterator[Row]:
    try:
        table = Parquet(str(path))
    except ImportError as error:
        raise DatasetError(
            f"{path}: is Parquet, and reading it needs pyarrow ({error}). Install it by: pip install 'headrace[train]'"
        ) from error
    taken = {column: table.header[place(str(path), table.header, column)] for column in columns or table.header}
    taken |= {column: column for column in also if column in table.header}
    for number, values in table.rows(taken, path.stat().st_size):
        yield Row(f"{path} row {number}", values)


def _distinct(columns: Sequence[str]) -> Sequence[str]:
    return list(dict.fromkeys(columns))
