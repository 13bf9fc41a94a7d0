"""A result on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from headrace_load.report.figures import Table as Facts
from headrace_load.report.figures import tables
from headrace_load.report.words import headline, short
from headrace_load.result import Comparison, Result


def show(console: Console, document: Result | Comparison) -> None:
    """Print the tables of a result or a comparison, and the verdict last, where it is read."""
    for facts in tables(document):
        console.print(table(facts))
        if facts.note:
            console.print(Text(facts.note, style="dim"))
        console.print()
    for note in document.notes if isinstance(document, Result) else ():
        console.print(Text(f"Note: {note}"))
    stand, words, why = headline(document)
    name = f"{short(document.name)}: " if isinstance(document, Result) else ""
    console.print(Text.assemble((f"{name}{words}. ", "bold green" if stand else "bold red"), why))


def table(facts: Facts) -> Table:
    """One table as rich draws it; names from files are plain text, never markup."""
    drawn = Table(title=Text(facts.title), title_justify="left", title_style="bold")
    for index, column in enumerate(facts.columns):
        drawn.add_column(Text(column), justify="right" if index else "left", overflow="fold")
    for row in facts.rows:
        drawn.add_row(*(Text(cell) for cell in row))
    return drawn
