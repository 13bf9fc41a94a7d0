"""Reports as tables for the terminal. What would be too long is cut, and a line says so."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.console import RenderableType
from rich.table import Table

from headrace.training.report import Report

_MOST_CLASSES = 20
_LARGEST_MATRIX = 10


def report_tables(report: Report) -> Iterator[RenderableType]:
    """Accuracy and macro-F1, each class (of many, those with the lowest F1), and the confusion of classes."""
    yield f"{report.rows:,} rows   accuracy {report.accuracy:.2%}   macro-F1 {report.macro_f1:.2%}"
    yield _classes(report)
    if len(report.classes) <= _LARGEST_MATRIX:
        yield _matrix(report)
    elif report.confusions:
        yield _mistakes(report)


def _classes(report: Report) -> Table:
    shown = report.classes
    title = "Each class"
    if len(shown) > _MOST_CLASSES:
        shown = tuple(sorted(shown, key=lambda one: one.f1)[:_MOST_CLASSES])
        title = f"The {_MOST_CLASSES} of {len(report.classes)} classes with the lowest F1"
    table = _table(title, "class", "precision", "recall", "F1", "rows")
    for one in shown:
        table.add_row(one.label, f"{one.precision:.1%}", f"{one.recall:.1%}", f"{one.f1:.1%}", f"{one.support:,}")
    return table


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
