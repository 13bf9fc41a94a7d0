"""The output of the demo: a live table on a terminal, plain lines elsewhere, and the closing lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Never

import msgspec
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from headrace.core.clock import Clock
from headrace.demo.stream import Ledger, Snapshot
from headrace_schemas.records import Status

MOST_LABELS = 12
REFRESH_S = 0.25
PLAIN_EVERY_S = 5.0
FIGURES = "p50 and p99 are from when a text was due to be published to when its answer reached the reader"


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where the demo ran, for the lines on how to go on. ``bootstrap`` is None for its own broker, which has ended."""

    bootstrap: str | None
    model: str


class View(msgspec.Struct, frozen=True):
    """One moment: the seconds since the stream began, and what a terminal and other outputs show of it."""

    elapsed_s: float
    table: RenderableType
    line: str


@contextmanager
def live(console: Console) -> Iterator[Callable[[View], None]]:
    """Yield a function that shows a view: in place on a terminal, otherwise as a line every PLAIN_EVERY_S seconds."""
    if console.is_terminal:
        with Live(console=console, auto_refresh=False) as drawn:
            yield lambda now: drawn.update(now.table, refresh=True)
    else:
        shown_at = 0.0

        def show(now: View) -> None:
            nonlocal shown_at
            if now.elapsed_s - shown_at >= PLAIN_EVERY_S:
                shown_at = now.elapsed_s
                console.print(now.line, soft_wrap=True)

        yield show


async def keep_shown(console: Console, now: Callable[[], View], clock: Clock) -> Never:
    """Show the views of ``now`` until cancelled, and then once more."""
    with live(console) as show:
        try:
            while True:
                show(now())
                await clock.sleep(REFRESH_S)
        finally:
            show(now())


def view(now: Snapshot) -> View:
    """The view of a stream without anything beside it."""
    return View(now.elapsed_s, table(now), line(now))


def table(now: Snapshot) -> Group:
    """The labels with their counts, and the figures below them. Of many labels it shows the most frequent."""
    ends = None if now.seconds is None else f"{min(now.elapsed_s, now.seconds):.0f} of {now.seconds:g} s"
    view = Table("label", title=ends or f"{now.elapsed_s:.0f} s", title_justify="left")
    view.add_column("answers", justify="right")
    view.add_column("share", justify="right")
    for label, count in now.labels[:MOST_LABELS]:
        view.add_row(Text(label), f"{count:,}", f"{count / now.answered:.0%}")
    if rest := now.labels[MOST_LABELS:]:
        count = sum(count for _, count in rest)
        view.add_row(f"{len(rest)} others", f"{count:,}", f"{count / now.answered:.0%}")
    return Group(view, line(now))


def line(now: Snapshot) -> str:
    """The figures in one line."""
    return (
        f"{now.answered:,} answers   {now.rate:,.0f}/s   p50 {milliseconds(now.p50)}   p99 {milliseconds(now.p99)}"
        f"   lag {now.lag:,}"
    )


def milliseconds(seconds: float | None) -> str:
    """``seconds`` for people; a dash for None."""
    if seconds is None:
        return "-"
    return f"{seconds * 1000:.1f} ms" if seconds < 0.01 else f"{seconds * 1000:,.0f} ms"


def closing(ledger: Ledger, end: Snapshot) -> list[str]:
    """Accuracy, latency and the audit."""
    return [
        f"accuracy on the held-out texts: {ledger.right / ledger.scored:.2%} ({ledger.right:,} of {ledger.scored:,})",
        f"latency of the stream: p50 {milliseconds(end.p50)}, p99 {milliseconds(end.p99)}\n({FIGURES})",
        audit(ledger),
    ]


def audit(ledger: Ledger) -> str:
    """The audit at the end: published, answered, lost and repeated texts."""
    others = [f"{count:,} {status}" for status, count in sorted(ledger.statuses.items()) if status is not Status.OK]
    return (
        f"audit: published {ledger.published:,}, answered {ledger.answered:,}, lost {ledger.waiting:,}, "
        f"repeated {ledger.repeated:,}"
    ) + (f" (of the answers: {', '.join(others)})" if others else "")


def next_steps(place: Place) -> list[str]:
    """What to try next, as commands."""
    if place.bootstrap is None:
        at, first = (
            "HOST:PORT",
            ["headrace broker --kind apache    # needs Java 17 and Maven; prints HOST:PORT"],
        )
    else:
        at, first = place.bootstrap, []
    return [
        "headrace demo --data FILE.csv    # the same with your own texts",
        "headrace up    # this version behind HTTP, with a console for the browser",
        *first,
        f"headrace --bootstrap {at} topics apply",
        f"headrace --bootstrap {at} worker --model {place.model} --processes 2",
        f'headrace --bootstrap {at} classify "The minister will raise the fuel tax"',
    ]
