"""What a report of either kind of document holds: its tables."""

from __future__ import annotations

from headrace_load.report.comparison_facts import comparison_tables
from headrace_load.report.facts import Table
from headrace_load.report.run_facts import run_tables
from headrace_load.result import Comparison, Result


def tables(document: Result | Comparison) -> tuple[Table, ...]:
    """All tables of a report that have rows, figures first."""
    found = comparison_tables(document) if isinstance(document, Comparison) else run_tables(document)
    return tuple(table for table in found if table.rows)
