"""The tables of a comparison, and the figures of its runs that pictures need too."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from statistics import median

from headrace_load.report.facts import Table, called, counts_of
from headrace_load.report.words import NONE, milliseconds, number, short, stands
from headrace_load.result import Comparison, Difference, Result

RATE = "rate"
"""The name of the difference that is between answers a second."""


def comparison_tables(comparison: Comparison) -> tuple[Table, ...]:
    """All tables of a comparison, figures first."""
    return side_by_side(comparison), differences(comparison), audits(comparison)


def side_by_side(comparison: Comparison) -> Table:
    """A row a contender: medians of the runs that stand, and the ratio of its rate to the first's."""
    rows = tuple(
        (
            short(name),
            f"{sum(stands(result) for result in results)} of {len(results)}",
            number(middle(results, lambda result: result.rate)),
            NONE if (rate := rate_difference(comparison, name)) is None else f"{rate.ratio:.3g}",
            number(middle(results, worker_cpu)),
            milliseconds(middle(results, lambda result: result.to_append.p50 if result.to_append else None)),
            milliseconds(middle(results, lambda result: result.to_append.p99 if result.to_append else None)),
            number(middle(results, worker_memory)),
        )
        for name, results in comparison.results.items()
    )
    columns = (
        "contender", "runs", "answers/s", "times the first", "CPU s a 100,000", "p50", "p99", "memory, MB",
    )  # fmt: skip
    note = "Medians of the runs that stand. The ratio is of the paired runs' rates; its interval is below."
    # A backlog has no latencies, and programs elsewhere no CPU: such columns are left out.
    known = [index for index in range(len(columns)) if any(row[index] != NONE for row in rows)]
    return Table(
        title="Side by side",
        columns=tuple(columns[index] for index in known),
        rows=tuple(tuple(row[index] for index in known) for row in rows),
        note=note,
    )


def differences(comparison: Comparison) -> Table:
    """Every figure's ratio to the first contender's, with its interval and whether that leaves 1 out."""
    rows = tuple(
        (
            f"{short(name)}: {called(one.figure)}",
            number(one.a),
            number(one.b),
            _ratio(one),
            "no difference shown" if one.low <= 1 <= one.high else "higher" if one.low > 1 else "lower",
            str(one.rounds),
        )
        for name, found in comparison.differences.items()
        for one in found
    )
    first = short(next(iter(comparison.results), ""))
    columns = ("", first, "this one", "times the first", "so it is", "rounds")
    confidence = {one.confidence for found in comparison.differences.values() for one in found}
    shown = ", ".join(f"{100 * value:.3g} %" for value in sorted(confidence))
    note = (
        f"Intervals of {shown} confidence, by Student's t over the logarithms of the rounds' ratios. All rounds count "
        "here, those without a verdict too."
    )
    return Table(title=f"Against {first}", columns=columns, rows=rows, note=note)


def audits(comparison: Comparison) -> Table:
    """A row a contender: the counts of its audits, added up over all runs."""
    columns: dict[str, None] = {}
    totals: dict[str, dict[str, int]] = {}
    for name, results in comparison.results.items():
        total: dict[str, int] = {}
        for result in results:
            for field, count in counts_of(result)[0].items():
                total[field] = total.get(field, 0) + count
        totals[name] = total
        columns.update(dict.fromkeys(total))
    rows = tuple((short(name), *(f"{total.get(field, 0):,}" for field in columns)) for name, total in totals.items())
    heads = ("contender", *(called(field) for field in columns))
    return Table(title="Audits, all runs together", columns=heads, rows=rows)


def middle(results: Iterable[Result], figure: Callable[[Result], float | None]) -> float | None:
    """The median of ``figure`` over the runs that stand and have it; None when there are none."""
    found = [value for result in results if stands(result) and (value := figure(result)) is not None]
    return median(found) if found else None


def worker_cpu(result: Result) -> float | None:
    """CPU seconds of the workers a 100,000 answers, None where their processes were not seen."""
    workers = result.used.get("workers")
    return workers.cpu_s_per_100k if workers is not None and workers.rss_mb_most else None


def worker_memory(result: Result) -> float | None:
    """The workers' most memory in MB, None where their processes were not seen."""
    workers = result.used.get("workers")
    return workers.rss_mb_most if workers is not None and workers.rss_mb_most else None


def rate_difference(comparison: Comparison, name: str) -> Difference | None:
    """How the rate of the contender ``name`` differs from the first's; None of the first itself."""
    return next((one for one in comparison.differences.get(name, ()) if one.figure == RATE), None)


def _ratio(difference: Difference) -> str:
    return f"{difference.ratio:.3g} ({difference.low:.3g} to {difference.high:.3g})"
