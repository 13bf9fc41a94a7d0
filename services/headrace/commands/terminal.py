"""Output: tables for a terminal, and lines of JSON or CSV for programs.

Cells may come from strangers' records: nothing in them is taken as markup, and control characters are escaped.
"""

from __future__ import annotations

import enum
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

import msgspec
from rich import box
from rich.console import Console, ConsoleOptions, RenderableType
from rich.panel import Panel
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from headrace.commands.common import say
from headrace.core.errors import UserError
from headrace.core.text import printable, quantity
from headrace.files.spreadsheet import csv_writer

if TYPE_CHECKING:
    from headrace.learning.evaluate import Interval, Report

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

    On a terminal everything that it would obey is escaped. CSV is safe to open as a spreadsheet, and our own commands
    read its texts as they were (:mod:`headrace.files.spreadsheet`).
    """
    if form is Form.JSON:
        return lambda row: say(msgspec.json.encode(row).decode(), flush=True)
    write = csv_writer(_Output(), columns)
    return lambda row: write(row.get(name) for name in columns)


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
    Into a file or a pipe no line ends with blanks.
    """

    def __init__(self, *, markup: bool = False, highlight: bool = False, **options: Any) -> None:
        if "file" not in options and not options.get("stderr") and not sys.stdout.isatty():
            options["file"] = _WithoutBlanks(sys.stdout)
        super().__init__(markup=markup, highlight=highlight, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        return super().render(_shown(renderable) if isinstance(renderable, Text) else renderable, options)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text, lines=True), **options)


class _WithoutBlanks:
    """A stream for rich, which fills every row of a table up to the width of its longest cell."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write(_BLANKS.sub("", text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


_BLANKS = re.compile(r" +(?=\n)")


def heading(text: str) -> Text:
    """The title of a table: above it, as long as it has to be, where a table's own would be folded to its width."""
    return Text(f"\n{text}", style="bold")


def _shown(text: Text) -> Text:
    plain = printable(text.plain, lines=True)
    if plain == text.plain:
        return text
    # The styles of parts would lie elsewhere now; that of the whole stays.
    return Text(
        plain, style=text.style, justify=text.justify, overflow=text.overflow, no_wrap=text.no_wrap, end=text.end
    )


def plain_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table without lines. A cell that is too long goes on below."""
    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(cell, overflow="fold") for cell in row))
    return table


_MOST_CLASSES = 20
_LARGEST_MATRIX = 10
_MOST_NAMED = 10
_NONE = "-"
"""In the place of a figure that can't be measured."""


def report_tables(report: Report) -> Iterator[RenderableType]:
    """Accuracy and macro-F1, each class (of many, those with the lowest F1), and the confusion of classes."""
    yield f"{quantity(report.rows, 'row')}; in brackets where the figure of all texts may lie (95 %)"
    accuracy, macro_f1 = (Text(f"{share:.2%}", style="bold") for share in (report.accuracy, report.macro_f1))
    yield Text.assemble(
        ("accuracy ", ""),
        accuracy,
        f" ({_interval(report.accuracy_interval)})   macro-F1 ",
        macro_f1,
        f" ({_interval(report.macro_f1_interval)})",
    )
    yield from _classes(report)
    if len(report.classes) <= _LARGEST_MATRIX:
        yield heading("Confusion: rows of a class, and as which one they were answered")
        yield _matrix(report)
    elif report.confusions:
        yield heading("The most frequent mistakes")
        yield _mistakes(report)


def report_warnings(report: Report) -> Iterator[RenderableType]:
    """What the figures of a report don't tell, in frames that nobody passes over."""
    if report.tells_little:
        low, high = report.accuracy_interval
        yield frame(
            "TOO FEW ROWS TO TELL",
            f"{quantity(report.rows, 'row tells', 'rows tell')} very little: the accuracy on other "
            f"texts may be anything from {low:.0%} to {high:.0%}. Label more texts, of which about a tenth become test "
            "rows, or give some hundred labelled rows as a file of their own.",
        )
    if report.untested:
        more = len(report.untested) - _MOST_NAMED
        names = ", ".join(report.untested[:_MOST_NAMED]) + (f" and {more:,} more" if more > 0 else "")
        yield frame(
            "CLASSES WITHOUT ROWS",
            f"Nothing is known of how well {quantity(len(report.untested), 'learnt class is', 'learnt classes are')} "
            f"answered, of which there is no row: {names}",
        )


def frame(title: str, text: str) -> Panel:
    """A warning in a frame, which nobody passes over."""
    return Panel(Text(text), title=title, title_align="left", border_style="bold yellow")


def _classes(report: Report) -> Iterator[RenderableType]:
    shown = report.classes
    title = "Each class"
    if len(shown) > _MOST_CLASSES:
        shown = tuple(sorted(shown, key=lambda one: 1.0 if one.f1 is None else one.f1)[:_MOST_CLASSES])
        title = f"The {_MOST_CLASSES} of {len(report.classes)} classes with the lowest F1"
    yield heading(title)
    table = _table("class", "precision", "recall", "F1", "rows")
    for one in shown:
        table.add_row(printable(one.label), *map(_percent, (one.precision, one.recall, one.f1)), f"{one.support:,}")
    yield table


def _percent(fraction: float | None) -> str:
    return _NONE if fraction is None else f"{fraction:.1%}"


def _interval(interval: Interval) -> str:
    low, high = interval
    return f"{low:.1%} to {high:.1%}"


def _matrix(report: Report) -> Table:
    counts = {(one.label, one.predicted): one.count for one in report.confusions}
    counts |= {(one.label, one.label): one.right for one in report.classes}
    # Numbers as headings: names of labels side by side are soon wider than a terminal.
    numbers = [str(number) for number in range(1, len(report.classes) + 1)]
    table = _table("class", *numbers)
    for number, one in zip(numbers, report.classes, strict=True):
        cells = (_count(counts.get((one.label, other.label), 0)) for other in report.classes)
        table.add_row(f"{number} {printable(one.label)}", *cells)
    return table


def _count(count: int) -> str:
    return f"{count:,}" if count else "·"


def _mistakes(report: Report) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name in ("rows of", "answered as"):
        table.add_column(name, overflow="fold")
    table.add_column("rows", justify="right", no_wrap=True)
    for one in report.confusions[:_MOST_CLASSES]:
        table.add_row(printable(one.label), printable(one.predicted), f"{one.count:,}")
    return table


def _table(name: str, *figures: str) -> Table:
    """Figures are never cut; names give way, over several lines."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column(name, overflow="fold")
    for figure in figures:
        table.add_column(figure, justify="right", no_wrap=True)
    return table
