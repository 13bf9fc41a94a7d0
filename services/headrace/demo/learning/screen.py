"""What the demo of the learning path prints of versions, swaps and the audit."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from headrace.demo.learning.swaps import BESIDE_MS, Swap
from headrace.demo.learning.versions import Made
from headrace.demo.screen import milliseconds
from headrace.demo.stream import Snapshot

FIGURES = (
    "(a wait is from when a text was due to be published to when its answer reached the reader; beside: due from "
    f"{BESIDE_MS / 1000:g} s before the alias moved to as long after the last partition had the version; trainings and "
    "commands compute on the same cores)"
)


def made_lines(of: Made) -> list[str]:
    """How a version was trained, and the gate's verdict."""
    version, lineage = of.version, of.version.lineage
    took_s = ((of.training.ended_at_ms or 0) - of.training.begun_at_ms) / 1000
    lines = [f"{version.version}: {version.size / 1e6:.2f} MB, {len(version.labels)} labels, after {took_s:.0f} s"]
    if lineage is not None:
        dropped = ", ".join(f"{count:,} {reason}" for reason, count in lineage.dropped.items() if count)
        lines.append(
            f"{lineage.ranks} ranks trained on {lineage.rows:,} rows of {lineage.source}"
            + (f"; left out: {dropped}" if dropped else "")
        )
    if (score := version.metrics.get("test_macro_f1")) is not None:
        rows, low, high = (version.metrics.get(f"test_{name}") for name in ("rows", "macro_f1_low", "macro_f1_high"))
        interval = "" if low is None or high is None else f" (95 % interval {low:.1%} to {high:.1%})"
        lines.append(f"macro-F1 {score:.2%}{interval} on {rows or 0:,.0f} test rows, which no training sees")
    lines.append(f"gate: {'promoted' if of.verdict.promoted else 'not promoted'}: {of.verdict.reason}")
    return lines


def swaps_table(swaps: Sequence[tuple[str, Swap]]) -> Table:
    """A row for each swap, after what it was for. Times are from the alias's record on."""
    table = Table("to version", title="Swaps under the running stream", title_justify="left")
    for title in ("first answer", "all partitions", "worst beside", "of requests"):
        table.add_column(title, justify="right")
    for what, swap in swaps:
        times = (milliseconds(swap.first), milliseconds(swap.everywhere), milliseconds(swap.worst))
        table.add_row(what, *times, f"{swap.beside:,}")
    return table


def whole_stream(end: Snapshot) -> list[str]:
    """What to hold the swaps against."""
    return [
        f"the whole stream: {end.answered:,} answers, median wait {milliseconds(end.p50)}, p99 {milliseconds(end.p99)}",
        FIGURES,
    ]


def erasure(erased: int, left_out: int, quoted: int, still: int) -> str:
    """What became of ``erased`` labels; ``quoted`` and ``still`` are the canaries of both versions that are of them."""
    return (
        f"erased: {left_out:,} of {erased:,} labels left out of version 2; version 1 quotes {quoted:,} of them to test "
        f"itself, version 2 {still:,}"
    )


def order_of_versions(*, kept: bool) -> str:
    """Whether answers came of the champions, one after another."""
    return f"every partition was answered by versions 1, 2, 1, 2 in this order: {'yes' if kept else 'NO'}"
