"""The rows of each format: delimited text such as CSV, JSON, and Parquet. :mod:`headrace.files.table` chooses."""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Iterator, Sequence
from itertools import chain
from typing import Any
from unicodedata import normalize

import msgspec

from headrace.core.text import quantity
from headrace.files import DatasetError
from headrace.files.decoding import FREE_BYTES, LARGEST_RATIO, MOST_CHARACTERS, lines_of

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
_WORDS = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "bar": "|", "pipe": "|"}
_NO_NUMBER = re.compile(r"[:\[,]\s*(NaN|-?Infinity)\s*[,}\]]")
_SURROGATE = re.compile(r"\\u[dD](?:[89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|[c-fC-F][0-9a-fA-F]{2})")
_MOST_SHOWN = 20
_SEPARATOR = "sep="


def checked_delimiter(given: str) -> str:
    """The character that ``given`` names: itself, or a word such as tab. Raises DatasetError."""
    delimiter = _WORDS.get(given.lower(), given)
    if len(delimiter) != 1 or delimiter in '"\r\n\0 ' or delimiter.isalnum():
        raise DatasetError(f"--delimiter {given!r}: must be one character such as , ; | or the word tab")
    return delimiter


class Delimited:
    """The rows of ``lines``; made when the first line has been read and the delimiter is known.

    ``wanted`` are the required columns, None for any.
    """

    def __init__(self, lines: Iterator[str], name: str, wanted: Sequence[str], delimiter: str | None) -> None:
        self._lines = lines
        self._name = name
        self._number = 0
        self._begun = 0
        self._size = 0
        first = next((line for line in self._counted() if line.strip()), "")
        if first.lower().startswith(_SEPARATOR) and len(first.strip("\r\n")) == len(_SEPARATOR) + 1:
            # Excel names the delimiter in such a line.
            delimiter = delimiter or first[len(_SEPARATOR)]
            first = next((line for line in self._counted() if line.strip()), "")
        if not first:
            raise DatasetError(f"{name}: is empty; its first line has to name the columns")
        self.delimiter = delimiter or _sniffed(first, wanted)
        blanks = f'{self.delimiter} "' in first
        csv.field_size_limit(MOST_CHARACTERS)
        self._reader = csv.reader(self._fed(first), delimiter=self.delimiter, strict=True, skipinitialspace=blanks)
        header = self._next() or []
        self.header = [normalize("NFC", one.strip()) for one in header]

    def rows(self, places: dict[str, int]) -> Iterator[tuple[int, dict[str, object]]]:
        """The line number and fields of each row. Raises DatasetError for a row with more or fewer fields."""
        chosen = list(places.items())
        while (fields := self._next()) is not None:
            if not fields:
                continue
            if len(fields) != len(self.header):
                raise DatasetError(
                    f"{self._name} line {self._begun}: has {quantity(len(fields), 'field')} where the first line names"
                    f" {len(self.header)}. Is a text with a {DELIMITERS.get(self.delimiter, 'delimiter')} in it not"
                    " quoted?"
                )
            yield self._begun, {column: fields[place] for column, place in chosen}

    def _counted(self) -> Iterator[str]:
        for line in self._lines:
            self._number += 1
            yield line

    def _fed(self, first: str) -> Iterator[str]:
        yield first
        for line in self._counted():
            self._size += len(line)
            if self._size > 2 * MOST_CHARACTERS:
                raise DatasetError(
                    f"{self._name} line {self._begun}: here begins a row longer than {MOST_CHARACTERS:,} characters, "
                    "the most that is read. Is a quotation mark not closed?"
                )
            yield line

    def _next(self) -> list[str] | None:
        self._begun = self._number + bool(self._size or self._begun)
        self._size = 0
        try:
            return next(self._reader, None)
        except csv.Error as error:
            raise DatasetError(
                f"{self._name} line {self._begun}: here begins a row that is not valid CSV ({error}). A field with a "
                "quotation mark in it is quoted, and its marks are doubled"
            ) from error


def place(name: str, header: Sequence[str], column: str) -> int:
    """The index of ``column`` in ``header``. Raises DatasetError unless it is there exactly once."""
    wanted = normalize("NFC", column.strip())
    if header.count(wanted) != 1:
        shown = ", ".join(repr(one[:60]) for one in header[:_MOST_SHOWN])
        more = f" and {len(header) - _MOST_SHOWN:,} more" if len(header) > _MOST_SHOWN else ""
        raise DatasetError(
            f"{name}: must have one column {column!r}, its columns are {shown or 'none'}{more}."
            " Name yours with --text-column, --label-column or --id-column"
        )
    return header.index(wanted)


def _sniffed(first: str, wanted: Sequence[str]) -> str:
    """The delimiter by which ``first`` has all ``wanted`` columns. Of several, or if none does, the one with the most
    fields.
    """

    def rank(delimiter: str) -> tuple[int, int]:
        try:
            fields = [
                normalize("NFC", one.strip().strip('"')) for one in next(csv.reader([first], delimiter=delimiter))
            ]
        except (csv.Error, StopIteration):
            return 0, 0
        return sum(fields.count(normalize("NFC", one.strip())) == 1 for one in wanted), len(fields)

    return max(DELIMITERS, key=rank)


_ROW = msgspec.json.Decoder(dict[str, msgspec.Raw])
_STRUCTURE = re.compile(r'[{}"]')
_IN_STRING = re.compile(r'["\\]')
_FAULTS = (msgspec.DecodeError, RecursionError, UnicodeError)


def json_rows(
    texts: Iterator[str], name: str, wanted: Collection[str] | None, also: Collection[str]
) -> Iterator[tuple[int, dict[str, object]]]:
    """For each object the number of its first line, and its values.

    An object needs the ``wanted`` fields and may have those of ``also``. With ``wanted`` None all fields are taken.
    Raises DatasetError naming the line.
    """
    before: list[str] = []
    blank = 0
    for text in texts:
        before.append(text)
        if text.strip():
            break
        blank += len(text)
        if blank > MOST_CHARACTERS:
            raise DatasetError(f"{name}: begins with more than {MOST_CHARACTERS:,} blank characters, as no rows do")
    texts = chain(before, texts)
    if before and before[-1].lstrip().startswith("["):
        objects = _elements(texts, name)
    else:
        objects = ((number, line) for number, line in enumerate(lines_of(texts, name), 1) if line.strip())
    for number, line in objects:
        yield number, _json_values(line, f"{name} line {number}", wanted, also)


def _json_values(text: str, where: str, wanted: Collection[str] | None, also: Collection[str]) -> dict[str, object]:
    try:
        row = _ROW.decode(text)
        for column in wanted or ():
            if column not in row:
                shown = ", ".join(repr(one[:60]) for one in list(row)[:_MOST_SHOWN])
                raise DatasetError(f"{where}: has no {column!r}, only {shown or 'nothing'}")
        chosen = row if wanted is None else [*wanted, *(one for one in also if one in row)]
        return {column: msgspec.json.decode(row[column]) for column in chosen}
    except _FAULTS as error:
        raise DatasetError(f"{where}: is not a JSON object ({error}). {_advice(text)}") from error


def _advice(text: str) -> str:
    if found := _NO_NUMBER.search(text):
        return f"{found[1]} is no JSON, though Python writes it: write null"
    if found := _SURROGATE.search(text):
        return f"{found[0]} is half of a character: was a text cut within an emoji?"
    return "Allowed are an object a line, or one array of objects"


def _elements(texts: Iterator[str], name: str) -> Iterator[tuple[int, str]]:
    """The objects of the JSON array in ``texts``, each with the number of its first line."""
    scan = _Scan()
    for text in texts:
        at = scan.begin(text)
        while at < len(text):
            if scan.depth:
                at, whole = scan.within(text, at)
                if whole is not None:
                    yield scan.begun, whole
            else:
                at = scan.between(text, at, name)
        scan.end(text)
        if scan.size > MOST_CHARACTERS:
            raise DatasetError(
                f"{name} line {scan.begun}: here begins an object longer than {MOST_CHARACTERS:,} characters, the most "
                "that is read"
            )
    if not scan.ended:
        raise DatasetError(f"{name} line {scan.line}: the array has no end; was the file cut?")


class _Scan:
    """The state of a scan through an array, across pieces of text: between objects or within one, in a string or
    not.
    """

    def __init__(self) -> None:
        self.depth = 0
        self.line = 1
        self.begun = 1
        self.size = 0
        self.ended = False
        self._held: list[str] = []
        self._start = 0
        self._in_string = False
        self._escaped = 0
        self._inside = False
        self._comma = False
        self._counted = 0

    def begin(self, text: str) -> int:
        """Where to go on in the next ``text``: behind an escaped character, if the last piece ended with its
        backslash.
        """
        self._start = 0
        escaped, self._escaped = self._escaped, 0
        self._counted = 0
        return min(escaped, len(text))

    def end(self, text: str) -> None:
        """Keep the part of ``text`` that belongs to an incomplete object."""
        self.line += text.count("\n", self._counted)
        if self.depth:
            self._held.append(text[self._start :])
            self.size += len(text) - self._start

    def between(self, text: str, at: int, name: str) -> int:
        """Read one character between objects."""
        character = text[at]
        if character.isspace():
            return at + 1
        self.line += text.count("\n", self._counted, at)
        self._counted = at
        if self.ended:
            raise DatasetError(f"{name} line {self.line}: something stands behind the end of the array")
        if not self._inside:
            self._inside = True
        elif character == "]":
            self.ended = True
        elif character == "," and self._comma:
            self._comma = False
        elif character == "{" and not self._comma:
            self.depth, self.begun, self._start, self.size = 1, self.line, at, 0
        else:
            raise DatasetError(
                f"{name} line {self.line}: here an array of objects with a comma between them was expected. Allowed "
                "are an object a line, or one array of objects"
            )
        return at + 1

    def within(self, text: str, at: int) -> tuple[int, str | None]:
        """Go on to the next brace or quotation mark. Returns the object, if it ends there."""
        found = (_IN_STRING if self._in_string else _STRUCTURE).search(text, at)
        if found is None:
            return len(text), None
        at = found.end()
        match found[0]:
            case '"':
                self._in_string = not self._in_string
            case "\\":
                self._escaped = int(at == len(text))
                at += 1
            case "{":
                self.depth += 1
            case _:
                self.depth -= 1
                if self.depth == 0:
                    whole = "".join((*self._held, text[self._start : at]))
                    self._held, self._comma = [], True
                    return at, whole
        return at, None


_PARQUET_ROWS = 1000


class Parquet:
    """The rows of the Parquet file at ``path``. Raises DatasetError for another file."""

    def __init__(self, path: str) -> None:
        import pyarrow as pa  # noqa: PLC0415 - for those who bring Parquet
        from pyarrow import parquet  # noqa: PLC0415

        self._path = path
        # The last two mean strings that are not UTF-8, and times that Python can't represent.
        self._faults = (pa.ArrowException, OSError, ValueError, OverflowError)
        try:
            self._file: Any = parquet.ParquetFile(path)
        except self._faults as error:
            raise DatasetError(f"{path}: is not a Parquet file ({error})") from error
        self.header: list[str] = list(self._file.schema_arrow.names)

    def rows(self, columns: dict[str, str], packed_bytes: int) -> Iterator[tuple[int, dict[str, object]]]:
        """The number of each row, from 1, and its values by the keys of ``columns``, whose values name the file's."""
        number = 0
        grown = 0
        try:
            with self._file as file:
                for batch in file.iter_batches(batch_size=_PARQUET_ROWS, columns=list(columns.values())):
                    grown += batch.nbytes
                    if grown > FREE_BYTES and grown > LARGEST_RATIO * packed_bytes:
                        raise DatasetError(
                            f"{self._path}: grows to more than {LARGEST_RATIO} times its size, as no texts do"
                        )
                    values = [batch.column(name).to_pylist() for name in columns.values()]
                    for row in zip(*values, strict=True):
                        number += 1
                        yield number, dict(zip(columns, row, strict=True))
        except self._faults as error:
            raise DatasetError(f"{self._path}: is damaged behind row {number} ({error})") from error
