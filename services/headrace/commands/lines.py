"""Rows as lines that programs read, on standard output: JSON, or CSV with its columns named in the first line."""

from __future__ import annotations

import csv
import enum
import sys
from collections.abc import Callable, Mapping, Sequence

import msgspec

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
