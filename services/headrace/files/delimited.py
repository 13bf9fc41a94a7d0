"""Rows of CSV and its like: fields between commas, semicolons, tabs or bars, which the first line names."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from unicodedata import normalize

from headrace.files.decoding import MOST_CHARACTERS
from headrace.files import DatasetError

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
_WORDS = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "bar": "|", "pipe": "|"}
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

    ``wanted`` are the columns that there have to be, None for any.
    """

    def __init__(self, lines: Iterator[str], name: str, wanted: Sequence[str], delimiter: str | None) -> None:
        self._lines = lines
        self._name = name
        self._number = 0
        self._begun = 0
        self._size = 0
        first = next((line for line in self._counted() if line.strip()), "")
        if first.lower().startswith(_SEPARATOR) and len(first.strip("\r\n")) == len(_SEPARATOR) + 1:
            # Excel's own way to say it.
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
        """Number of the line and fields of each row. Raises DatasetError for a row of more or fewer fields."""
        chosen = list(places.items())
        while (fields := self._next()) is not None:
            if not fields:
                continue
            if len(fields) != len(self.header):
                raise DatasetError(
                    f"{self._name} line {self._begun}: has {len(fields)} fields where the first line names"
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
    """Where ``column`` is in ``header``. Raises DatasetError unless it is there once."""
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
    """The delimiter by which ``first`` names all that is ``wanted``; of several, or of none, the one of most fields."""

    def rank(delimiter: str) -> tuple[int, int]:
        try:
            fields = [
                normalize("NFC", one.strip().strip('"')) for one in next(csv.reader([first], delimiter=delimiter))
            ]
        except (csv.Error, StopIteration):
            return 0, 0
        return sum(fields.count(normalize("NFC", one.strip())) == 1 for one in wanted), len(fields)

    return max(DELIMITERS, key=rank)
