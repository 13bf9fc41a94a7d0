"""CSV that people open as a spreadsheet: no cell of a stranger becomes a formula, and reading gives back what was
written.

A spreadsheet computes a cell that begins with = + - or @, also behind a tab or a line end (CSV injection,
https://owasp.org/www-community/attacks/CSV_Injection). An apostrophe before it makes the cell a text. The last column,
:data:`ESCAPED`, names the row's columns that have one, so reading takes these off and no others.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

ESCAPED = "escaped"
_MARK = "'"
# Full-width ones too: Excel takes them for the others where Japanese or Chinese is set.
_FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
_BETWEEN = "|"


class Writable(Protocol):
    """Where CSV goes: a file, a buffer, or standard output."""

    def write(self, text: str, /) -> object: ...


def csv_writer(out: Writable, columns: Sequence[str]) -> Callable[[Iterable[object]], None]:
    """Write the first line, which names ``columns`` and ESCAPED, and return what writes a row of their values.

    None is an empty cell. Numbers are written as they are. NUL, which no CSV has, becomes a blank.
    """
    plain = csv.writer(out, lineterminator="\n")
    # A CR is quoted by itself only where it ends lines.
    quoted = csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_ALL)
    plain.writerow((*columns, ESCAPED))

    def write(values: Iterable[object]) -> None:
        cells = ["" if value is None else _without_nul(value) for value in values]
        marked = [place for place, cell in enumerate(cells) if isinstance(cell, str) and cell.startswith(_FORMULA)]
        for place in marked:
            cells[place] = f"{_MARK}{cells[place]}"
        named = _BETWEEN.join(columns[place] for place in marked)
        returns = any(isinstance(cell, str) and "\r" in cell for cell in cells)
        (quoted if returns else plain).writerow((*cells, named))

    return write


def _without_nul(value: object) -> object:
    return value.replace("\0", " ") if isinstance(value, str) else value


def as_written(values: Mapping[str, object]) -> dict[str, object]:
    """The cells of a row of CSV, by column, as :func:`csv_writer` was given them.

    Of a row without ESCAPED, and of a file that has such a column for its own ends, they stay what they are.
    """
    named = f"{_BETWEEN}{values.get(ESCAPED) or ''}{_BETWEEN}"
    return {
        column: cell[1:]
        if isinstance(cell, str)
        and f"{_BETWEEN}{column}{_BETWEEN}" in named
        and cell.startswith(_MARK)
        and cell[1:].startswith(_FORMULA)
        else cell
        for column, cell in values.items()
    }
