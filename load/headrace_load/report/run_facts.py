"""The tables of one run."""

from __future__ import annotations

from headrace_load.report.facts import Table, called, counts_of
from headrace_load.report.words import NONE, described, milliseconds, number, percent
from headrace_load.result import Latency, Result
from headrace_load.workload.spec import Backlog

_CLOCKS = {
    "append": "Time stamps of answers are the broker's, at the append.",
    "create": (
        "Time stamps of answers are the worker's, when it handed them to its producer: what publishing took is not in "
        "the latency to the append. Results topics with message.timestamp.type=LogAppendTime have the broker's."
    ),
}

# Stages that come to so much more than the whole are spoken of.
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
    """CPU and memory of workers, broker and harness; those that were not seen are left out."""
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
