"""`headrace tail`: the answers as they come."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter, deque
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.commands.common import NO_LABEL, Bootstrap, begin, client_of, console, say
from headrace.core.starts import METAVAR, parse_start

if TYPE_CHECKING:
    from rich.console import RenderableType

    from headrace.client import Answer
    from headrace.config import Settings

SHOWN = 20
REFRESH_S = 0.25


def tail(
    ctx: typer.Context,
    *,
    from_: Annotated[str, typer.Option("--from", metavar=METAVAR, help="Where to begin.")] = "latest",
    count: Annotated[int | None, typer.Option(min=1, help="End after so many answers.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object a line, instead of the live table.")] = False,
    bootstrap: Bootstrap = None,
) -> None:
    """Show the answers as they come, without repeats; holes are marked. Ends by Ctrl-C."""
    settings = begin(ctx, {"--bootstrap": ("kafka.bootstrap", bootstrap)})
    parse_start(from_)  # Before anything is connected.
    follow = _lines if as_json or not sys.stdout.isatty() else _table
    with suppress(KeyboardInterrupt):
        asyncio.run(follow(settings, from_, count))


def as_line(answer: Answer) -> str:
    """One answer as JSON: its partition, the result's own fields, and the hole in front of it, if any."""
    import msgspec

    fields = {"partition": answer.partition, **msgspec.to_builtins(answer.result)}
    if answer.hole is not None:
        fields["hole"] = msgspec.to_builtins(answer.hole)
    return msgspec.json.encode(fields).decode()


async def _lines(settings: Settings, from_: str, count: int | None) -> None:
    shown = 0
    async with client_of(settings) as client, aclosing(client.answers(from_)) as answers:
        async for answer in answers:
            say(as_line(answer), flush=True)
            shown += 1
            if shown == count:
                return


async def _table(settings: Settings, from_: str, count: int | None) -> None:
    from rich.live import Live

    last: deque[Answer] = deque(maxlen=SHOWN)
    totals: Counter[str] = Counter()
    async with client_of(settings) as client, client.reader(from_) as reader:
        with Live(table(last, totals), console=console(), auto_refresh=False) as live:
            while count is None or totals.total() < count:
                answers = await reader.read(timeout_s=REFRESH_S)
                for answer in answers if count is None else answers[: count - totals.total()]:
                    last.append(answer)
                    totals[answer.result.status] += 1
                live.update(table(last, totals), refresh=True)


def table(last: deque[Answer], totals: Counter[str]) -> RenderableType:
    """The last answers, newest last, and how many of each status there were."""
    from rich.table import Table
    from rich.text import Text

    from headrace_schemas import Status

    said = ", ".join(f"{count:,} {status}" for status, count in totals.items()) or "waiting for answers"
    shown = Table(
        "request", "status", "label", "score", "id", "version", "", box=None, pad_edge=False, caption=said,
        caption_justify="left",
    )  # fmt: skip
    for answer in last:
        result = answer.result
        hole = answer.hole
        cells = (
            f"{answer.partition}@{result.offset}",
            result.status,
            result.label or result.reason or (NO_LABEL if result.status is Status.OK else ""),
            "" if result.score is None else f"{result.score:.3f}",
            result.id or "",
            result.version,
            "" if hole is None else f"no answer to {hole.first} to {hole.last}",
        )
        # Text, because a label or an id may look like markup.
        shown.add_row(*map(Text, cells))
    return shown
