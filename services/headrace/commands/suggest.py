"""`headrace labels suggest`: the requests that are worth a person's label, as a table or for an annotation tool."""

from __future__ import annotations

import asyncio
import datetime as dt
import enum
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.commands.common import NO_LABEL, Bootstrap, begin, cluster_of, console, place_for, remark
from headrace.commands.tasks import TaskFormat, format_of, give_out
from headrace.core.errors import UserError
from headrace.core.fields import parse_start
from headrace.core.selection import Why
from headrace.core.text import quantity
from headrace.files.annotations import Task

if TYPE_CHECKING:
    from headrace.client.suggestions import Found

SINCE = "1d"


class Queue(enum.StrEnum):
    """Which requests are asked about first."""

    MARGIN = "margin"
    ABSTAINED = "abstained"
    DISAGREEMENT = "disagreement"
    RANDOM = "random"


_WHY = {
    Queue.MARGIN: Why.MARGIN,
    Queue.ABSTAINED: Why.ABSTAINED,
    Queue.DISAGREEMENT: Why.DISAGREEMENT,
    Queue.RANDOM: Why.RANDOM,
}


def suggest(
    ctx: typer.Context,
    *,
    count: Annotated[int, typer.Option(min=1, max=100_000, help="How many texts.")] = 100,
    queue: Annotated[
        Queue, typer.Option(help="margin: unsure answers; random: chosen by chance, which certificates are made of.")
    ] = Queue.MARGIN,
    since: Annotated[
        str, typer.Option(metavar="AGO|TIME", help="Only answers since then, such as 2h or 7d, or earliest.")
    ] = SINCE,
    last: Annotated[int, typer.Option(min=1, help="Look at no more than so many of the last answers.")] = 100_000,
    beside: Annotated[
        str | None, typer.Option(metavar="TOPIC", help="For disagreement: the results topic of the other version.")
    ] = None,
    out: Annotated[str | None, typer.Option(metavar="FILE", help="Write them to a file instead.")] = None,
    form: Annotated[
        TaskFormat | None, typer.Option("--format", help="By default what the file's name says, or a table.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
    bootstrap: Bootstrap = None,
) -> None:
    """Show the requests that are most worth a label of a person, without those whose text has one already.

    The column label is for whoever labels; `headrace labels publish` takes the file back, and the exports of Label
    Studio and Argilla. Of texts that a training takes for equal it shows one, and no erased text. Texts chosen by
    chance keep that as their source, and tools show no answer with them, so that nobody is led by it.
    """
    from headrace.client.suggestions import find_tasks
    from headrace.commands.answers import moment_of

    settings = begin(ctx, bootstrap)
    if (queue is Queue.DISAGREEMENT) != (beside is not None):
        raise UserError("--queue disagreement and --beside TOPIC, the results of the other version, go together.")
    if beside == settings.topics.names().results:
        raise UserError(f"--beside {beside}: those are the answers that it is to be compared with.")
    chosen = format_of(out, form)
    where = None if out is None else place_for(out, force=force)
    start = parse_start(moment_of(since, dt.datetime.now(dt.UTC)))
    found = asyncio.run(find_tasks(cluster_of(settings), settings, _WHY[queue], count, start, last, beside))
    if found.unread:
        remark(f"WARNING: texts that were erased may be among these, for nobody may read which: {found.unread}")
    if not found.tasks:
        tell_nothing(found, queue, since)
        raise typer.Exit(1)
    give_out(found.tasks, chosen, out, where, _show)
    remark(
        f"{quantity(len(found.tasks), 'text')} of {quantity(found.answers, 'answer')} since {since}"
        + (f"; {found.known:,} left out that have a label or came twice" if found.known else "")
        + (f"; {found.erased:,} left out that {'was' if found.erased == 1 else 'were'} erased" if found.erased else "")
        + (f"; {found.gone:,} whose request is gone" if found.gone else "")
    )


def tell_nothing(found: Found, queue: Queue, since: str) -> None:
    """Say why there is nothing to label."""
    if not found.answers:
        remark(f"There is no answer since {since}; --since earliest looks at all that are kept.")
    elif not found.candidates:
        remark(f"None of {quantity(found.answers, 'answer')} since {since} belongs to the queue {queue}.")
    else:
        remark(
            f"Of {quantity(found.candidates, 'request')} in the queue {queue} every text has a label, was erased or is"
            " gone."
        )


def _show(tasks: Sequence[Task]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, expand=True)
    table.add_column("request", no_wrap=True)
    table.add_column("answered", max_width=24, no_wrap=True, overflow="ellipsis")
    table.add_column("score", no_wrap=True)
    table.add_column("text", ratio=3, no_wrap=True, overflow="ellipsis")
    table.add_column("why", ratio=2, no_wrap=True, overflow="ellipsis")
    for task in tasks:
        score = "" if task.score is None else f"{task.score:.3f}"
        cells = (task.at, task.answered or NO_LABEL, score, " ".join(task.text.split()), task.why)
        # Text, because a label or a text may look like markup.
        table.add_row(*map(Text, cells))
    console().print(table)
