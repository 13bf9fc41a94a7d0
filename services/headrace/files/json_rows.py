"""Rows of JSON: an object a line, or an array of objects, which may be all on one line and larger than the memory."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from itertools import chain

import msgspec

from headrace.files.decoding import MOST_CHARACTERS, lines_of
from headrace.files import DatasetError

_ROW = msgspec.json.Decoder(dict[str, msgspec.Raw])
_STRUCTURE = re.compile(r'[{}"]')
_IN_STRING = re.compile(r'["\\]')
_MOST_SHOWN = 20
_FAULTS = (msgspec.DecodeError, RecursionError, UnicodeError)


def json_rows(
    texts: Iterator[str], name: str, wanted: Collection[str] | None, also: Collection[str]
) -> Iterator[tuple[int, dict[str, object]]]:
    """The number of the line where it begins, and the values, of each object.

    Each has to have the ``wanted`` fields and may have those of ``also``; with None for ``wanted`` all are taken.
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
        yield number, _values(line, f"{name} line {number}", wanted, also)


def _values(text: str, where: str, wanted: Collection[str] | None, also: Collection[str]) -> dict[str, object]:
    try:
        row = _ROW.decode(text)
        for column in wanted or ():
            if column not in row:
                shown = ", ".join(repr(one[:60]) for one in list(row)[:_MOST_SHOWN])
                raise DatasetError(f"{where}: has no {column!r}, only {shown or 'nothing'}")
        chosen = row if wanted is None else [*wanted, *(one for one in also if one in row)]
        return {column: msgspec.json.decode(row[column]) for column in chosen}
    except _FAULTS as error:
        raise DatasetError(
            f"{where}: is not a JSON object ({error}). Allowed are an object a line, or one array of objects"
        ) from error


def _elements(texts: Iterator[str], name: str) -> Iterator[tuple[int, str]]:
    """The objects of the array that ``texts`` are, each with the line where it begins."""
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
    """How far into an array it is: between objects or within one, in a string or not, across pieces of text."""

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
        """Where in the next ``text`` to go on: behind a character whose backslash ended the one before."""
        self._start = 0
        escaped, self._escaped = self._escaped, 0
        self._counted = 0
        return min(escaped, len(text))

    def end(self, text: str) -> None:
        """Keep what of ``text`` belongs to an object that isn't whole."""
        self.line += text.count("\n", self._counted)
        if self.depth:
            self._held.append(text[self._start :])
            self.size += len(text) - self._start

    def between(self, text: str, at: int, name: str) -> int:
        """Read one character that belongs to no object."""
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
        """Go on to the next brace or mark; the object, when that ends it."""
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
