"""The table of faults, as Markdown, and its place in a page of docs/."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from load.chaos.fault import Fault
from load.chaos.run import Outcome

BEGIN, END = "<!-- faults: begin -->", "<!-- faults: end -->"
HEAD = (
    "| | fault | nodes | runs | requests | lost | said lost | raw repeats | seen repeats | longest stall s | "
    "recovery s | |\n|---|---|---|---|---|---|---|---|---|---|---|---|"
)


def table(faults: Sequence[Fault], outcomes: Sequence[Outcome]) -> str:
    """A row for each fault that was run: sums over its runs, and the longest stall and recovery among them."""
    lines = [HEAD]
    about = ""
    for fault in faults:
        runs = [outcome for outcome in outcomes if outcome.fault == fault.name]
        if runs:
            lines.append(_row(fault, runs, "" if fault.about == about else fault.about))
            about = fault.about
    return "\n".join(lines)


def summary(outcomes: Sequence[Outcome]) -> str:
    """What all runs come to, in a sentence or two."""
    checked = [outcome.checked for outcome in outcomes if outcome.checked is not None]
    failed = [f"{outcome.fault} with seed {outcome.seed}" for outcome in outcomes if outcome.error is not None]
    kept = "All runs kept the promise." if not failed else f"Not kept: {', '.join(failed)}."
    return (
        f"{len({outcome.fault for outcome in outcomes})} faults, {len(outcomes)} runs of together "
        f"{sum(outcome.seconds for outcome in outcomes) / 60:.0f} minutes, "
        f"{sum(one.acknowledged for one in checked):,} requests, {sum(one.lost for one in checked)} lost, "
        f"{sum(one.seen_twice for one in checked)} seen twice. {kept}"
    )


def write_docs(page: Path, text: str) -> None:
    """Put ``text`` between the marks of ``page``. Raises ValueError when it has none."""
    found = page.read_text(encoding="utf-8")
    before, begin, rest = found.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{page} has no lines {BEGIN} and {END} to write the table between")
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", encoding="utf-8")


def _row(fault: Fault, runs: Sequence[Outcome], about: str) -> str:
    checked = [outcome.checked for outcome in runs if outcome.checked is not None]
    failed = next((outcome.error for outcome in runs if outcome.error is not None), None)
    raw, other = sum(one.raw.equal for one in checked), sum(one.raw.other for one in checked)
    cells = (
        about,
        fault.title,
        fault.nodes,
        len(runs),
        f"{sum(one.acknowledged for one in checked):,}",
        sum(one.lost for one in checked),
        sum(one.said for one in checked),
        f"{raw:,}" if not other else f"{raw:,} and {other:,} that differ",
        sum(one.seen_twice for one in checked),
        f"{max((one.stall_s for one in checked), default=0.0):.1f}",
        f"{max((one.recovery_s for one in checked), default=0.0):.1f}",
        _notes(runs) if failed is None else f"**FAILED**: {failed.splitlines()[0]}",
    )
    return f"| {' | '.join(str(cell).replace('|', '/') for cell in cells)} |"


def _notes(runs: Sequence[Outcome]) -> str:
    """What was noted, each thing once; of a random sequence each run had other faults."""
    return "; ".join(dict.fromkeys(note for outcome in runs for note in outcome.notes))
