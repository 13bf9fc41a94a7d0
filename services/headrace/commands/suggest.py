"""`headrace labels suggest`: the requests that are worth a person's label, as a table or for an annotation tool."""

from __future__ import annotations

import asyncio
import datetime as dt
import enum
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from headrace.commands.common import NO_LABEL, Bootstrap, begin, cluster_of, console, place_for, remark, say
from headrace.core.errors import UserError
from headrace.core.fields import parse_start
from headrace.core.selection import Why
from headrace.core.text import quantity
from headrace.files.annotations import COLUMNS, Task, argilla_records, label_studio_tasks
from headrace.files.spreadsheet import csv_writer

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


class TaskFormat(enum.StrEnum):
    """As what the texts are written."""

    TABLE = "table"
    CSV = "csv"
    JSONL = "jsonl"
    LABEL_STUDIO = "label-studio"
    ARGILLA = "argilla"


_SUFFIXES = {".csv": TaskFormat.CSV, ".jsonl": TaskFormat.JSONL}


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
    Studio and Argilla. Of texts that are equal to training one is shown, and none that was erased. Texts chosen by
    chance keep that as their source, and tools show no answer with them, so that nobody is led by it.
    """
    from headrace.client.suggestions import find_tasks
    from headrace.commands.answers import moment_of

    settings = begin(ctx, bootstrap)
    if (queue is Queue.DISAGREEMENT) != (beside is not None):
        raise UserError("--queue disagreement and --beside TOPIC, the results of the other version, go together.")
    if beside == settings.topics.names().results:
        raise UserError(f"--beside {beside}: those are the answers that it is to be compared with.")
    chosen = _format(out, form)
    where = None if out is None else place_for(out, force=force)
    start = parse_start(moment_of(since, dt.datetime.now(dt.UTC)))
    found = asyncio.run(find_tasks(cluster_of(settings), settings, _WHY[queue], count, start, last, beside))
    if found.unread:
        remark(f"WARNING: texts that were erased may be among these, for nobody may read which: {found.unread}")
    if not found.tasks:
        tell_nothing(found, queue, since)
        raise typer.Exit(1)
    if where is None and chosen is TaskFormat.TABLE:
        _show(found.tasks)
    elif where is None:
        sys.stdout.write(written(found.tasks, chosen))
    else:
        from headrace.model import store

        store.write(where, written(found.tasks, chosen).encode("utf-8", "replace"), "export", private=True)
        say(f"wrote {quantity(len(found.tasks), 'text')} to {out}")
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


def _format(out: str | None, form: TaskFormat | None) -> TaskFormat:
    if out is None:
        return form or (TaskFormat.TABLE if sys.stdout.isatty() else TaskFormat.JSONL)
    if form is TaskFormat.TABLE:
        raise UserError("--format table is for the screen; a file is csv, jsonl, label-studio or argilla.")
    found = form or _SUFFIXES.get(Path(out).suffix.lower())
    if found is None:
        raise UserError(f"{out}: its name says no format; name it .csv or .jsonl, or give --format.")
    return found


def written(tasks: Sequence[Task], form: TaskFormat) -> str:
    """The tasks as the text of a file of that format."""
    match form:
        case TaskFormat.LABEL_STUDIO:
            return msgspec.json.format(msgspec.json.encode(label_studio_tasks(tasks)), indent=1).decode() + "\n"
        case TaskFormat.ARGILLA:
            return msgspec.json.format(msgspec.json.encode(argilla_records(tasks)), indent=1).decode() + "\n"
        case TaskFormat.CSV:
            out = io.StringIO(newline="")
            write = csv_writer(out, COLUMNS)
            for task in tasks:
                write(task.row()[name] for name in COLUMNS)
            return out.getvalue()
        case _:
            return "".join(f"{msgspec.json.encode(task.row()).decode()}\n" for task in tasks)


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
