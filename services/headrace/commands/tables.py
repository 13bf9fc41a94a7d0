"""Reports as tables for the terminal. What would be too long is cut, and a line says so."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.console import RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from headrace.learning.report import Interval, Report

_MOST_CLASSES = 20
_LARGEST_MATRIX = 10
_MOST_NAMED = 10
_NONE = "-"
"""In the place of a figure that can't be measured."""


def report_tables(report: Report) -> Iterator[RenderableType]:
    """Accuracy and macro-F1, each class (of many, those with the lowest F1), and the confusion of classes."""
    yield f"{report.rows:,} rows; in brackets where the figure of all texts may lie (95 %)"
    yield (
        f"accuracy {report.accuracy:.2%} ({_interval(report.accuracy_interval)})   "
        f"macro-F1 {report.macro_f1:.2%} ({_interval(report.macro_f1_interval)})"
    )
    yield _classes(report)
    if len(report.classes) <= _LARGEST_MATRIX:
        yield _matrix(report)
    elif report.confusions:
        yield _mistakes(report)


def report_warnings(report: Report) -> Iterator[RenderableType]:
    """What the figures of a report don't tell, in frames that nobody passes over."""
    if report.tells_little:
        low, high = report.accuracy_interval
        yield _frame(
            "TOO FEW ROWS TO TELL",
            f"{report.rows:,} {'row tells' if report.rows == 1 else 'rows tell'} very little: the accuracy on other "
            f"texts may be anything from {low:.0%} to {high:.0%}. Label more texts, of which about a tenth become test "
            "rows, or give some hundred labelled rows as a file of their own.",
        )
    if report.untested:
        more = len(report.untested) - _MOST_NAMED
        names = ", ".join(report.untested[:_MOST_NAMED]) + (f" and {more:,} more" if more > 0 else "")
        yield _frame(
            "CLASSES WITHOUT ROWS",
            f"Nothing is known of how well {len(report.untested):,} learnt "
            f"{'class is' if len(report.untested) == 1 else 'classes are'} answered, of which there is no row: {names}",
        )


def _frame(title: str, text: str) -> Panel:
    return Panel(Text(text), title=title, title_align="left", border_style="bold yellow")


def _classes(report: Report) -> Table:
    shown = report.classes
    title = "Each class"
    if len(shown) > _MOST_CLASSES:
        shown = tuple(sorted(shown, key=lambda one: 1.0 if one.f1 is None else one.f1)[:_MOST_CLASSES])
        title = f"The {_MOST_CLASSES} of {len(report.classes)} classes with the lowest F1"
    table = _table(title, "class", "precision", "recall", "F1", "rows")
    for one in shown:
        table.add_row(one.label, *map(_share, (one.precision, one.recall, one.f1)), f"{one.support:,}")
    return table


def _share(share: float | None) -> str:
    return _NONE if share is None else f"{share:.1%}"


def _interval(interval: Interval) -> str:
    low, high = interval
    return f"{low:.1%} to {high:.1%}"


def _matrix(report: Report) -> Table:
    counts = {(one.label, one.predicted): one.count for one in report.confusions}
    counts |= {(one.label, one.label): one.right for one in report.classes}
    # Numbers as headings: names of labels side by side are soon wider than a terminal.
    numbers = [str(number) for number in range(1, len(report.classes) + 1)]
    table = _table("Confusion: rows of a class, and as which one they were answered", "class", *numbers)
    for number, one in zip(numbers, report.classes, strict=True):
        cells = (_count(counts.get((one.label, other.label), 0)) for other in report.classes)
        table.add_row(f"{number} {one.label}", *cells)
    return table


def _count(count: int) -> str:
    return f"{count:,}" if count else "·"


def _mistakes(report: Report) -> Table:
    table = Table(title="The most frequent mistakes", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("rows of", "answered as"):
        table.add_column(name, overflow="fold")
    table.add_column("rows", justify="right", no_wrap=True)
    for one in report.confusions[:_MOST_CLASSES]:
        table.add_row(one.label, one.predicted, f"{one.count:,}")
    return table


def _table(title: str, name: str, *figures: str) -> Table:
    """Figures are never cut; names give way, over several lines."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(name, overflow="fold")
    for figure in figures:
        table.add_column(figure, justify="right", no_wrap=True)
    return table
