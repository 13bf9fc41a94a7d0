"""Rows as lines that programs read, on standard output: JSON, or CSV with its columns named in the first line.

A console for tables whose cells strangers wrote: it obeys no markup and no control character of theirs.
"""

from __future__ import annotations

import csv
import enum
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from headrace.commands.common import say
from headrace.core.errors import UserError
from headrace.core.printable import printable

Row = Mapping[str, object]


class Form(enum.Enum):
    """How a row is written."""

    JSON = "json"
    CSV = "csv"


def form_of(*, as_json: bool, as_csv: bool) -> Form | None:
    """The form that --json and --csv ask for, None where neither was given. Raises UserError for both."""
    if as_json and as_csv:
        raise UserError("--json and --csv ask for two forms of one line: give one of them.")
    return Form.JSON if as_json else Form.CSV if as_csv else None


def row_writer(form: Form, columns: Sequence[str]) -> Callable[[Row], None]:
    """What prints a row at once. JSON has what the row has; CSV its ``columns``, None as an empty field.

    On a terminal everything that it would obey is escaped. Into a file CSV goes as it is, so that texts stay what they
    were. Who opens it as a spreadsheet should know that a text may begin with ``=``.
    """
    if form is Form.JSON:
        return lambda row: say(msgspec.json.encode(row).decode(), flush=True)
    lines = csv.writer(_Output(), lineterminator="\n")
    lines.writerow(columns)
    return lambda row: lines.writerow("" if row.get(name) is None else row[name] for name in columns)


class _Output:
    """Standard output as csv needs it: each row goes out whole and at once."""

    def write(self, text: str) -> None:
        # A lone surrogate, which no stream can encode, came from a JSON file and would end all of it.
        shown = printable(text, lines=True) if sys.stdout.isatty() else text.encode("utf-8", "replace").decode()
        sys.stdout.write(shown)
        sys.stdout.flush()


class Terminal(Console):
    """rich's console, through which everything is shown that may come from a record.

    Strings are taken literally unless ``markup`` is set, and every text is made printable before it is measured.
    """

    def __init__(self, *, markup: bool = False, **options: Any) -> None:
        super().__init__(markup=markup, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        return super().render(_shown(renderable) if isinstance(renderable, Text) else renderable, options)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text, lines=True), **options)


def _shown(text: Text) -> Text:
    plain = printable(text.plain, lines=True)
    if plain == text.plain:
        return text
    # The styles of parts would lie elsewhere now; that of the whole stays.
    return Text(
        plain, style=text.style, justify=text.justify, overflow=text.overflow, no_wrap=text.no_wrap, end=text.end
    )
