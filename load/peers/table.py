"""The tables side by side: how fast each drains, and how long an answer takes at a steady rate."""

from __future__ import annotations

from collections.abc import Callable

from headrace_load.report.tables import Table, middle, worker_cpu, worker_memory
from headrace_load.report.text import milliseconds, number
from headrace_load.result import Comparison, Result
from load.peers.contenders import FASTSTREAM, ONNX


def drained_table(comparison: Comparison) -> Table:
    """Medians of the rounds that stand, and their ratios to FastStream's and the faster of ONNX Runtime's."""
    fastest = max(ONNX, key=lambda name: middle(comparison.results[name], _rate) or 0.0)
    rows = tuple(
        (
            name,
            number(middle(results, _rate)),
            _times(comparison, name, FASTSTREAM, _rate),
            _times(comparison, name, fastest, _rate),
            number(middle(results, _draining_cpu)),
            number(middle(results, worker_memory)),
        )
        for name, results in comparison.results.items()
    )
    return Table(
        title="Draining a backlog",
        columns=("contender", "texts/s", "x FastStream", "x ONNX", "CPU s a 100,000", "memory, MB"),
        rows=rows,
        note=f'Medians of the runs that stand. Ratios are to "{FASTSTREAM}" and "{fastest}". '
        "The peers do without headrace's wide part.",
    )


def steady_table(title: str, comparison: Comparison) -> Table:
    """Latency from when a request was due to the append of its answer, and its ratio to the first contender's."""
    first = next(iter(comparison.results))
    rows = tuple(
        (
            name,
            number(middle(results, _rate)),
            milliseconds(middle(results, _p50)),
            milliseconds(middle(results, _p99)),
            _times(comparison, name, first, _p50),
            _times(comparison, name, first, _p99),
            number(middle(results, worker_cpu)),
        )
        for name, results in comparison.results.items()
    )
    columns = ("contender", "texts/s", "p50", "p99", "p50 x the first", "p99 x the first", "CPU s a 100,000")
    return Table(title=title, columns=columns, rows=rows, note="Medians of the runs that stand.")


def markdown(table: Table) -> str:
    """The table for a page of the documentation."""
    lines = [table.columns, ("---", *("--:" for _ in table.columns[1:])), *table.rows]
    return "\n".join(("| " + " | ".join(line) + " |") for line in lines) + f"\n\n{table.note}\n"


def _times(comparison: Comparison, name: str, other: str, figure: Callable[[Result], float | None]) -> str:
    mine, theirs = (middle(comparison.results[each], figure) for each in (name, other))
    return number(mine / theirs if mine is not None and theirs else None)


def _draining_cpu(result: Result) -> float | None:
    """CPU seconds a 100,000 answers without the program's start, which weighs most on those that drain few."""
    used = result.used.get("workers")
    return (used.cpu_s - used.start_cpu_s) * 1e5 / result.answered if used and result.answered else None


def _rate(result: Result) -> float:
    return result.rate


def _p50(result: Result) -> float | None:
    return result.to_append.p50 if result.to_append else None


def _p99(result: Result) -> float | None:
    return result.to_append.p99 if result.to_append else None
