"""A run while it goes on: a view that is drawn in place on a terminal, and plain lines elsewhere."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from msgspec import Struct
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from headrace_load.report.tables import NONE, milliseconds, short
from headrace_load.result import Progress

PLAIN_EVERY_S = 5.0
RATES_OVER = 5
"""Over how many reports a shown rate is the mean."""
BAR_WIDTH = 40


class Rates(Struct, frozen=True, kw_only=True):
    """Rates a second between two reports; None where unknown."""

    due: float | None = None
    sent: float | None = None
    acked: float | None = None
    answered: float | None = None


@contextmanager
def live(console: Console, name: str) -> Iterator[Callable[[Progress], None]]:
    """Yield a function that shows how far the run ``name`` is.

    On a terminal it draws in place. Elsewhere it prints a line every PLAIN_EVERY_S seconds of the run and at each new
    phase.
    """
    seen: deque[Progress] = deque(maxlen=RATES_OVER + 1)
    if console.is_terminal:
        with Live(console=console, auto_refresh=False) as view:

            def draw(now: Progress) -> None:
                seen.append(now)
                view.update(picture(name, now, rates(seen)), refresh=True)

            yield draw
        return
    shown: Progress | None = None

    def say(now: Progress) -> None:
        nonlocal shown
        seen.append(now)
        if shown is None or now.phase != shown.phase or now.elapsed_s - shown.elapsed_s >= PLAIN_EVERY_S:
            shown = now
            console.print(Text(line(name, now, rates(seen))), soft_wrap=True)

    yield say


def rates(seen: Sequence[Progress]) -> Rates:
    """The rates between the first and the last of ``seen``; all None for fewer than two reports."""
    if len(seen) < 2 or (seconds := seen[-1].elapsed_s - seen[0].elapsed_s) <= 0:
        return Rates()
    first, last = seen[0], seen[-1]
    answered = None
    if first.answered is not None and last.answered is not None:
        answered = (last.answered - first.answered) / seconds
    return Rates(
        due=(last.due - first.due) / seconds,
        sent=(last.sent - first.sent) / seconds,
        acked=(last.acked - first.acked) / seconds,
        answered=answered,
    )


def share(now: Progress) -> float | None:
    """Which fraction of the run is done, from 0 to 1; None if unknown."""
    if now.whole_s:
        return min(1.0, now.elapsed_s / now.whole_s)
    if not now.requests:
        return None
    return min(1.0, (now.sent if now.phase == "publishing" else now.answered or 0) / now.requests)


def picture(name: str, now: Progress, per_second: Rates) -> Group:
    """The view on a terminal."""
    done = share(now)
    head = Table.grid(padding=(0, 1))
    bar = ProgressBar(total=1.0, completed=done or 0.0, width=BAR_WIDTH, pulse=done is None)
    head.add_row(Text(short(name), style="bold"), bar, Text(_how_far(now)))
    counts = Table(box=None, padding=(0, 2, 0, 0))
    counts.add_column("")
    counts.add_column("count", justify="right")
    counts.add_column("a second", justify="right")
    for what, count, rate in (
        ("due", now.due, per_second.due),
        ("sent", now.sent, per_second.sent),
        ("acknowledged", now.acked, per_second.acked),
        ("answered", now.answered, per_second.answered),
    ):
        counts.add_row(what, _count(count), _count(rate))
    counts.add_row("lag", _count(now.lag), "")
    late = Text(f"99 in 100 sent at most {milliseconds(now.late_p99_ms)} late") if now.late_p99_ms is not None else ""
    return Group(head, counts, late)


def line(name: str, now: Progress, per_second: Rates) -> str:
    """The same in one line."""
    return (
        f"{short(name)}  {_how_far(now)}  sent {now.sent:,} ({_count(per_second.sent)}/s)  "
        f"answered {_count(now.answered)} ({_count(per_second.answered)}/s)  lag {_count(now.lag)}  "
        f"late p99 {milliseconds(now.late_p99_ms)}"
    )


def _how_far(now: Progress) -> str:
    whole = f" of {now.whole_s:.0f}" if now.whole_s else ""
    return f"{now.phase}, {now.elapsed_s:.0f}{whole} s"


def _count(value: float | None) -> str:
    return NONE if value is None else f"{value:,.0f}"
