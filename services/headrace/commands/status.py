"""`headrace status`: one screen of how it stands, what looks wrong, and what mends it."""

from __future__ import annotations

import asyncio
import datetime as dt
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.commands.common import Bootstrap, OneJson, begin, cluster_of, console, say, wrapped
from headrace.core.text import printable, quantity

if TYPE_CHECKING:
    from rich.text import Text

    from headrace.config import Settings
    from headrace.sight.findings import Finding
    from headrace.sight.status import Group, Status

COLUMNS = 80
MOST_PARTITIONS = 6
MOST_LETTERS = 3
MOST_FINDINGS = 6
MOST_PROCESSES = 8
REFRESH_S = 2.0
_PLACE = re.compile(r"\A[^\s\[]+\[\d+\]@\d+:? ")


def status(
    ctx: typer.Context,
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Look again every few seconds, until Ctrl-C.")] = False,
    every: Annotated[
        float, typer.Option(min=0.5, max=3600, metavar="SECONDS", help="With --watch: how long to wait between looks.")
    ] = REFRESH_S,
    admin: Annotated[
        list[str] | None,
        typer.Option("--admin", metavar="HOST:PORT", help="The admin port of a process to ask too; may be repeated."),
    ] = None,
    limit: Annotated[
        float, typer.Option(min=1, max=300, metavar="SECONDS", help="How long each part may take to read.")
    ] = 10.0,
    as_json: OneJson = False,
    bootstrap: Bootstrap = None,
) -> None:
    """Show groups, lag, rates, versions, last errors, what looks wrong and what mends it, on one screen.

    All comes from Kafka, and nothing is written. What this user may not see is said to be unknown. Ends with 1 when
    Kafka does not answer, else with 0, whatever looks wrong; `headrace doctor` has exit codes for scripts.
    """
    settings = begin(ctx, bootstrap)
    for address in admin or ():
        if not address.rpartition(":")[0] or not address.rpartition(":")[2].isdecimal():
            raise typer.BadParameter(f"{address!r} is no HOST:PORT", param_hint="--admin")
    last = asyncio.run(_show(settings, tuple(admin or ()), limit, every if watch else None, as_json=as_json))
    if last is not None and last.away is not None:
        raise typer.Exit(1)


async def _show(
    settings: Settings, processes: Sequence[str], limit_s: float, every_s: float | None, *, as_json: bool
) -> Status | None:
    import msgspec
    from rich.live import Live

    shown, last = console(), None
    looks = _looks(settings, processes, limit_s, every_s)
    if as_json or every_s is None or not shown.is_terminal:
        async for last in looks:
            said = msgspec.json.encode(last).decode() if as_json else "\n".join(screen(last))
            if shown.is_terminal and not as_json:
                shown.print(coloured(screen(last)), soft_wrap=True)
            else:
                say(said if as_json or every_s is None else f"{said}\n", flush=True)
        return last
    with Live(console=shown, screen=True, auto_refresh=False) as live:
        async for last in looks:
            live.update(coloured(screen(last)), refresh=True)
    return last


async def _looks(
    settings: Settings, processes: Sequence[str], limit_s: float, every_s: float | None
) -> AsyncIterator[Status]:
    from headrace.core.clock import SystemClock
    from headrace.sight.status import look

    cluster, clock = cluster_of(settings), SystemClock()
    while True:
        with cluster.calmed():
            yield await look(cluster, settings, clock, limit_s=limit_s, processes=processes)
        if every_s is None:
            return
        await clock.sleep(every_s)


def screen(now: Status) -> list[str]:
    """``now`` as lines of at most COLUMNS columns, some 24 of them unless much is wrong."""
    lines = [f"headrace at {_when(now.at_ms)} UTC, Kafka at {now.bootstrap}{_brokers(now)}", ""]
    if now.away is None:
        lines += [*_groups(now), *_lag(now), *_versions(now), *_errors(now), *_processes(now)]
    lines += _wrong(now.findings)
    return [_short(printable(line)) for line in lines]


_STYLES = (
    ("error ", "bold red"),
    ("warning ", "yellow"),
    (" " * 9 + "$ ", "cyan"),
    ("Nothing looks wrong.", "green"),
    *((heading, "bold") for heading in ("headrace at ", "GROUP ", "PARTITION ", "WHAT LOOKS WRONG")),
)


def coloured(lines: Sequence[str]) -> Text:
    """``lines`` of :func:`screen` for a terminal: headings, levels and commands stand out."""
    from rich.text import Text

    shown = Text()
    for line in lines:
        style = next((style for begin, style in _STYLES if line.startswith(begin)), "")
        head = line.split(" ", 1)[0] if style in ("bold red", "yellow") else line
        shown.append(head, style).append(f"{line[len(head) :]}\n")
    shown.rstrip()
    return shown


def _brokers(now: Status) -> str:
    return "" if now.brokers is None else f", {quantity(now.brokers, 'broker')}"


def _groups(now: Status) -> Iterator[str]:
    yield f"{'GROUP':<10}{'NAME':<32}{'MEMBERS':>8}{'PARTITIONS':>12}  STATE"
    for group in now.groups:
        members = f"{len(group.members):>8}{_assigned(group, now):>12}"
        yield f"{group.role:<10}{_short(group.name, 31):<32}{members}  {group.state}"
    yield ""


def _assigned(group: Group, now: Status) -> str:
    told = [member.partitions for member in group.members if member.partitions is not None]
    if not told:
        return "-"
    if group.role in ("trainer", "labeller"):
        return "one leads" if any(told) else "none leads"
    return f"{sum(told)} of {len(now.partitions)}" if now.partitions else str(sum(told))


def _lag(now: Status) -> Iterator[str]:
    if now.lag is None:
        return
    yield f"{now.requests_s or 0:,.1f} requests and {now.answers_s or 0:,.1f} answers a second, over the last minute"
    if not now.lag:
        yield f"Nothing waits, in {quantity(len(now.partitions), 'partition')}."
    else:
        yield f"{quantity(now.lag, 'request')} wait, the oldest for {_seconds(now.lag_s)}."
        yield f"{'PARTITION':<10}{'LAG':>12}{'OLDEST':>12}{'LAST ANSWER':>16}"
        behind = sorted((one for one in now.partitions if one.lag), key=lambda one: -one.lag)
        for one in behind[:MOST_PARTITIONS]:
            ago = "-" if one.answered_ms is None else f"{_seconds((now.at_ms - one.answered_ms) / 1000)} ago"
            yield f"{one.partition:<10}{one.lag:>12,}{_seconds(one.lag_s):>12}{ago:>16}"
        if len(behind) > MOST_PARTITIONS:
            yield f"and {len(behind) - MOST_PARTITIONS:,} more partitions"
    yield ""


def _versions(now: Status) -> Iterator[str]:
    for one in now.aliases:
        more = ", pinned" if one.pinned else ""
        yield f"{one.alias:<12}{_short(one.version, 40)} since {_when(one.moved_ms)}{more}"
    for version in now.running:
        ago = _seconds((now.at_ms - version.answered_ms) / 1000)
        parts = quantity(version.partitions, "partition")
        yield f"{'answered by':<12}{_short(version.version, 40)} in {parts}, last {ago} ago"
    training = now.training
    if training is not None:
        when = _when(training.ended_ms or training.begun_ms)
        yield f"{'training':<12}{training.state} {when} {training.version or training.error or ''}"
    for labeller in now.labellers:
        yield f"{'teacher':<12}{_short(labeller.teacher, 40)} {'stopped' if labeller.stopped else 'is asked'}"
    if now.aliases or now.running or training is not None or now.labellers:
        yield ""


def _errors(now: Status) -> Iterator[str]:
    if now.letters is None or not now.letters.last:
        return
    yield f"{quantity(now.letters.last_hour, 'dead letter')} in the last hour; the last ones:"
    for letter in now.letters.last[-MOST_LETTERS:]:
        # The message may begin with the place, which stands there already.
        message = _PLACE.sub("", letter.message, count=1)
        yield f"  {_when(letter.at_ms, now.at_ms)} {letter.error} {letter.origin} {message}"
    yield ""


def _processes(now: Status) -> Iterator[str]:
    for one in now.processes[:MOST_PROCESSES]:
        yield f"{one.address} {'ready' if one.ready else 'not ready'} {one.version or ''} {one.why or ''}".rstrip()
    if now.processes:
        yield ""


def _wrong(findings: Sequence[Finding]) -> Iterator[str]:
    if not findings:
        yield "Nothing looks wrong."
        return
    yield "WHAT LOOKS WRONG"
    for one in findings[:MOST_FINDINGS]:
        yield from finding_lines(one, COLUMNS)
    if len(findings) > MOST_FINDINGS:
        yield f"and {len(findings) - MOST_FINDINGS:,} more; --json has all of them"


def finding_lines(finding: Finding, width: int) -> list[str]:
    """A finding in lines of at most ``width`` columns, with the command that mends it on one of its own."""
    first, *more = wrapped(printable(finding.says), width - 9).split("\n")
    lines = [f"{finding.level:<9}{first}", *(f"{'':<9}{line}" for line in more)]
    return lines if finding.mend is None else [*lines, f"{'':<9}$ {finding.mend}"]


def _when(at_ms: int, now_ms: int | None = None) -> str:
    """Date and time; of the day of ``now_ms`` the time alone."""
    day_ms = 86_400_000
    form = "%H:%M:%S" if now_ms is not None and at_ms // day_ms == now_ms // day_ms else "%Y-%m-%d %H:%M:%S"
    try:
        return dt.datetime.fromtimestamp(at_ms / 1000, dt.UTC).strftime(form)
    except (OverflowError, ValueError, OSError):
        return "at no time"


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    seconds = max(0.0, seconds)
    if seconds < 100:
        return f"{seconds:.1f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:,.0f} h"


def _short(line: str, longest: int = COLUMNS) -> str:
    return line if len(line) <= longest else f"{line[: longest - 3]}..."
