"""The tables, figures, names and verdicts of a report: as data for the page and the pictures, or printed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from statistics import median
from typing import Any

import msgspec
from msgspec import Struct
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from headrace_load.contender import Contender
from headrace_load.result import Comparison, Difference, Latency, Result
from headrace_load.workload.spec import Backlog

NONE = "–"
LONGEST_NAME = 32
AMONG_OTHERS = "workers that run already"


def milliseconds(value: float | None) -> str:
    """Milliseconds with three figures or so; seconds from ten on."""
    if value is None:
        return NONE
    if abs(value) >= 10_000:
        return f"{value / 1000:,.1f} s"
    return f"{value:.2f} ms" if abs(value) < 10 else f"{value:.1f} ms" if abs(value) < 100 else f"{value:,.0f} ms"


def number(value: float | None) -> str:
    """A rate or an amount: whole from a hundred on, else with the decimals that three figures need."""
    if value is None:
        return NONE
    size = abs(value)
    return f"{value:,.0f}" if size >= 100 or value == int(value) else f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def percent(share: float) -> str:
    """A fraction as a percentage. Only 0 is shown as 0 %."""
    return "< 0.1 %" if 0 < share < 0.0005 else f"{100 * share:.1f} %"


def short(name: str) -> str:
    """``name`` in one printable line that fits beside a bar."""
    line = " ".join("".join(c if c.isprintable() else " " for c in name).split()) or "no name"
    return line if len(line) <= LONGEST_NAME else line[: LONGEST_NAME - 1] + "…"


def described(contender: Contender | None) -> str:
    """The contender in a line."""
    if contender is None:
        return AMONG_OTHERS
    if (worker := contender.worker) is not None:
        processes = "one process" if worker.processes == 1 else f"{worker.processes} processes"
        settings = "".join(f", {name}={value}" for name, value in sorted(worker.settings.items()))
        return f"headrace worker, {processes}, backend {worker.backend}, model {worker.model}{settings}"
    return f"program {' '.join(contender.program.command) if contender.program else ''}"


def flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """A struct's settings by dotted names, None and empty ones left out."""
    plain = msgspec.to_builtins(value)
    if isinstance(plain, dict):
        for key, part in plain.items():
            yield from flat(part, f"{name}.{key}" if name else str(key))
    elif isinstance(plain, list):
        if plain:
            yield name, ", ".join(str(part) for part in plain)
    elif plain is not None:
        yield name, str(plain)


def verdict(result: Result) -> tuple[bool, str]:
    """Whether the run's figures stand, and why, in a sentence or two."""
    if result.refused is not None:
        return False, f"There is no verdict: {result.refused}"
    if not result.audit.kept:
        return False, f"The audit failed: {result.audit.line()}."
    audited = f"Every one of {result.audit.published:,} acknowledged requests has exactly one answer."
    if result.audit.answered < result.audit.published:  # rubbish, which only headrace has to answer
        rest = result.audit.published - result.audit.answered
        audited = f"Every request has exactly one answer but for {rest:,}, rubbish that this contender need not answer."
    if isinstance(result.workload.arrivals, Backlog) or result.lateness is None:
        return True, audited
    late = percent(result.lateness.late)
    return True, (
        f"{audited} The producers kept to their plan: {late} of the requests were sent more than "
        f"{number(result.workload.lateness_ms)} ms late, 99 in 100 at most {milliseconds(result.lateness.p99)}."
    )


def verdict_of_all(comparison: Comparison) -> tuple[bool, str]:
    """The same for a comparison: which contenders have runs without a verdict."""
    runs = {name: len(results) for name, results in comparison.results.items()}
    bad = {name: sum(not stands(result) for result in results) for name, results in comparison.results.items()}
    whole = f"{sum(runs.values())} runs of {len(runs)} contenders, in turn."
    if not any(bad.values()):
        return True, f"{whole} Every audit was kept, and the producers kept to their plan."
    named = "; ".join(f"{short(name)}: {count} of {runs[name]}" for name, count in bad.items() if count)
    return False, f"{whole} Some have no verdict or failed the audit, and are left out of the medians ({named})."


def headline(document: Result | Comparison) -> tuple[bool, str, str]:
    """Whether the figures stand, the same in a few words, and why."""
    if isinstance(document, Result):
        stand, why = verdict(document)
        return stand, "The figures stand" if stand else "No figure stands", why
    stand, why = verdict_of_all(document)
    return stand, "The figures stand" if stand else "Not every figure stands", why


def stands(result: Result) -> bool:
    """Whether a run has a verdict and its audit was kept."""
    return result.refused is None and result.audit.kept


_WORDS = {
    "cpu_s_per_100k": "CPU s a 100,000",
    "rss_mb_most": "memory, MB",
    "p50": "p50, ms",
    "p99": "p99, ms",
    "dropped": "raw repeats dropped",
    "wrong": "to other texts",
}
"""The names in reports of fields of differences and audits, if they differ from the field's name."""


class Table(Struct, frozen=True, kw_only=True):
    """``rows`` of texts below ``columns``; the first column is of names, the others of figures."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def called(field: str) -> str:
    """The name in reports of a field of an audit or a figure of a difference."""
    return _WORDS.get(field, field.replace("_", " "))


def counts_of(result: Result) -> tuple[dict[str, int], dict[str, int]]:
    """The audit's counts by field, and the answers by status."""
    plain = msgspec.structs.asdict(result.audit)
    counts = {name: value for name, value in plain.items() if isinstance(value, int)}
    return counts, {f"answered {status}": count for status, count in sorted(result.audit.by_status.items())}


_CLOCKS = {
    "append": "Time stamps of answers are the broker's, at the append.",
    "create": (
        "Time stamps of answers are the worker's, when it handed them to its producer: what publishing took is not in "
        "the latency to the append. Results topics with message.timestamp.type=LogAppendTime have the broker's."
    ),
}

# If the stages exceed the whole by more than this fraction, a note says so.
_TELLING = 0.02


def run_tables(result: Result) -> tuple[Table, ...]:
    """All tables of a run, figures first."""
    return figures(result), latencies(result), stages(result), used(result), audit(result)


def figures(result: Result) -> Table:
    """The rates and counts of a run."""
    workers = result.used.get("workers")
    backlog = isinstance(result.workload.arrivals, Backlog)
    rows = [
        ("answers a second", number(result.rate)),
        ("of them ok, a second", number(result.goodput)),
        ("answers", f"{result.answered:,}"),
        ("requests published", f"{result.published:,}"),
        ("first to last answer" if backlog else "measured", f"{number(result.seconds)} s"),
    ]
    if result.first_answer_s is not None:
        rows.append(("start to first answer", f"{number(result.first_answer_s)} s"))
    if workers is not None and workers.rss_mb_most:
        rows += [
            ("workers' CPU a 100,000 answers", f"{workers.cpu_s_per_100k:.2f} s"),
            ("workers' memory at most", f"{number(workers.rss_mb_most)} MB"),
        ]
    return Table(title="Figures", columns=("", "value"), rows=tuple(rows), note=described(result.contender))


def latencies(result: Result) -> Table:
    """Latencies of answers, and how late the producers were."""
    found = {"to the append of the answer": result.to_append, "to the reader": result.to_reader}
    rows = [(name, *_latency(latency)) for name, latency in found.items() if latency is not None and latency.count]
    if rows and (late := result.lateness) is not None:
        shown = (NONE, NONE, milliseconds(late.p50), NONE, milliseconds(late.p99), NONE, milliseconds(late.max))
        rows.append(("sent later than due", *shown))
    return Table(
        title="Latency, from when a request was due to be sent",
        columns=("", "requests", "mean", "p50", "p90", "p99", "p99.9", "max"),
        rows=tuple(rows),
        note=_CLOCKS.get(result.append_clock, ""),
    )


def _latency(latency: Latency) -> tuple[str, ...]:
    times = (latency.mean, latency.p50, latency.p90, latency.p99, latency.p999, latency.max)
    return (f"{latency.count:,}", *(milliseconds(value) for value in times))


def stages(result: Result) -> Table:
    """Where the mean request's time went."""
    rows = tuple((stage.name, milliseconds(stage.mean), percent(stage.share)) for stage in result.stages)
    whole = result.to_reader or result.to_append
    told = sum(stage.mean for stage in result.stages)
    over = told / whole.mean - 1 if whole is not None and whole.mean else 0.0
    note = f"Measured apart, the stages come to {percent(over)} more than the mean latency." if over > _TELLING else ""
    return Table(title="The mean request's time by stage", columns=("stage", "mean", "share"), rows=rows, note=note)


def used(result: Result) -> Table:
    """CPU and memory of workers, broker and harness, as far as they were measured."""
    rows = tuple(
        (name, number(use.cpu_s), f"{use.cpu_s_per_100k:.2f}", number(use.rss_mb), number(use.rss_mb_most))
        for name, use in result.used.items()
        if use.rss_mb_most
    )
    columns = ("", "CPU s", "CPU s a 100,000 answers", "memory at the end, MB", "at most, MB")
    return Table(title="CPU and memory", columns=columns, rows=rows)


def audit(result: Result) -> Table:
    """The counts of the audit."""
    counts, statuses = counts_of(result)
    rows = tuple((called(name), f"{count:,}") for name, count in {**counts, **statuses}.items())
    note = "Kept: nothing lost, repeated, missing or wrong." if result.audit.kept else "Not kept."
    if (warm_up := result.audit.answered - result.answered) > 0:
        note += f" Requests of the warm-up are counted here and not above: {warm_up:,} of the answers are to them."
    return Table(title="Audit of the answer log", columns=("", "count"), rows=rows, note=note)


RATE = "rate"
"""The name of the difference that is between answers a second."""


def comparison_tables(comparison: Comparison) -> tuple[Table, ...]:
    """All tables of a comparison, figures first."""
    return side_by_side(comparison), differences(comparison), audits(comparison)


def side_by_side(comparison: Comparison) -> Table:
    """A row for each contender: medians of the runs that stand, and the ratio of its rate to the first's."""
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
    """The ratio of every figure to the first contender's, with its interval and whether the interval excludes 1."""
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
    """A row for each contender: the counts of its audits, added up over all runs."""
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
    """CPU seconds of the workers for 100,000 answers; None if their processes were not seen."""
    workers = result.used.get("workers")
    return workers.cpu_s_per_100k if workers is not None and workers.rss_mb_most else None


def running_cpu(result: Result) -> float | None:
    """CPU seconds of the workers for 100,000 answers, without their start, which would weigh more on slow
    contenders.
    """
    used = result.used.get("workers")
    return (used.cpu_s - used.start_cpu_s) * 1e5 / result.answered if used and result.answered else None


def worker_memory(result: Result) -> float | None:
    """The workers' most memory in MB, None where their processes were not seen."""
    workers = result.used.get("workers")
    return workers.rss_mb_most if workers is not None and workers.rss_mb_most else None


def rate_difference(comparison: Comparison, name: str) -> Difference | None:
    """How the rate of the contender ``name`` differs from the first's; None of the first itself."""
    return next((one for one in comparison.differences.get(name, ()) if one.figure == RATE), None)


def _ratio(difference: Difference) -> str:
    return f"{difference.ratio:.3g} ({difference.low:.3g} to {difference.high:.3g})"


def tables(document: Result | Comparison) -> tuple[Table, ...]:
    """All tables of a report that have rows, figures first."""
    found = comparison_tables(document) if isinstance(document, Comparison) else run_tables(document)
    return tuple(table for table in found if table.rows)


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


def table(facts: Table) -> RichTable:
    """One table as rich draws it; names from files are plain text, never markup."""
    drawn = RichTable(title=Text(facts.title), title_justify="left", title_style="bold")
    for index, column in enumerate(facts.columns):
        drawn.add_column(Text(column), justify="right" if index else "left", overflow="fold")
    for row in facts.rows:
        drawn.add_row(*(Text(cell) for cell in row))
    return drawn
