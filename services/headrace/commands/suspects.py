"""`headrace labels suspects`: rows whose label a fit that has not learnt them doubts, for a person to look at again."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from headrace.commands.common import (
    AsCsv,
    Bootstrap,
    Delimiter,
    Encoding,
    LabelColumn,
    LinesOfJson,
    TextColumn,
    begin,
    cluster_of,
    console,
    open_models,
    place_for,
    remark,
)
from headrace.commands.tasks import TaskFormat, format_of, give_out
from headrace.core.errors import UserError
from headrace.core.text import quantity
from headrace.files.annotations import Columns, Doubted, read_labelled
from headrace.learning.doubting import Found, Labelled

if TYPE_CHECKING:
    from headrace.config import Settings
    from headrace.core.label_rules import Rules
    from headrace.files.table import Reading

SHOWN_PAIRS = 5


def suspects(
    ctx: typer.Context,
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="Labelled texts; by default those of the labels topic.")
    ] = None,
    *,
    count: Annotated[int, typer.Option(min=1, max=1_000_000, help="How many at most.")] = 100,
    machine: Annotated[
        bool, typer.Option("--machine", help="The labels of teachers on their topic instead of people's.")
    ] = False,
    text_column: TextColumn = "text",
    label_column: LabelColumn = "label",
    id_column: Annotated[str | None, typer.Option(help="The column of the ids that FILE was published with.")] = None,
    out: Annotated[str | None, typer.Option(metavar="FILE", help="Write them to a file instead.")] = None,
    form: Annotated[
        TaskFormat | None, typer.Option("--format", help="By default what the file's name says, or a table.")
    ] = None,
    as_json: LinesOfJson = False,
    as_csv: AsCsv = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Show the labels that are probably wrong, the most doubtful first, each with the reason.

    Each row is scored by a fit to other rows, and confident learning says how many labels of each class are wrong. The
    column label is for whoever corrects them: write the right label, or nothing where the given one is right. `headrace
    labels publish` takes the file back, and each label takes the place of the one that it corrects.
    """
    from headrace.files.table import Reading

    if file is not None and machine:
        raise UserError("FILE and --machine name two places of labels: give one of them.")
    if id_column is not None and file is None:
        raise UserError("--id-column is a column of FILE; labels of the topic have their ids.")
    chosen = format_of(out, _asked(form, as_json=as_json, as_csv=as_csv))
    where = None if out is None else place_for(out, force=force)
    if file is not None:
        given = of_file(file, Columns(text_column, label_column, id_column), Reading(delimiter, encoding))
        place = str(file)
    else:
        settings = begin(ctx, bootstrap)
        given = asyncio.run(of_topic(settings, machine=machine))
        names = settings.topics.names()
        place = names.machine_labels if machine else names.labels
    if not given:
        raise UserError(f"{place} holds no label that can be used.")
    found = _find(given)
    if found.suspects:
        give_out(found.suspects[:count], chosen, out, where, _show)
        if chosen is TaskFormat.TABLE:
            _show_pairs(found)
    _tell(found, place, count)


def _asked(form: TaskFormat | None, *, as_json: bool, as_csv: bool) -> TaskFormat | None:
    asked = [one for one, wanted in ((TaskFormat.JSONL, as_json), (TaskFormat.CSV, as_csv), (form, form)) if wanted]
    if len(asked) > 1:
        raise UserError("--json, --csv and --format ask for different forms: give one of them.")
    return asked[0] if asked else None


def of_file(file: Path, columns: Columns, reading: Reading) -> list[Labelled]:
    """The rows of a file, numbered from 1. Raises DatasetError."""
    return [
        Labelled(
            text=one.text,
            label=one.label,
            number=number,
            id=(one.id or None) if columns.id else one.replaces,
            source=one.source,
            labelled_at_ms=one.labelled_at_ms,
        )
        for number, one in enumerate(read_labelled(file, columns, reading, remark), 1)
    ]


async def of_topic(settings: Settings, *, machine: bool) -> list[Labelled]:
    """The labels of people, or of teachers, that can be used, by the rules of labels. Raises a KafkaError."""
    from headrace.core.label_rules import learnt_as
    from headrace.learning.data.labels import read_labels
    from headrace.learning.data.machine_labels import machine_there, read_machine_labels

    cluster, names = cluster_of(settings), settings.topics.names()
    rules = await _rules(settings)
    found: list[Labelled]
    if machine:
        said = machine_there(await read_machine_labels(cluster, names.machine_labels))
        found = [Labelled(text=one.text, label=one.label) for one in said if one.error is None]
    else:
        found = [
            Labelled(text=one.text, label=one.label, id=one.id, source=one.source, labelled_at_ms=one.labelled_at_ms)
            for one in await read_labels(cluster, names.labels)
            if one.error is None
        ]
    return [
        msgspec.structs.replace(one, label=learnt)
        for one in found
        if (learnt := learnt_as(one.label, rules)) is not None
    ]


async def _rules(settings: Settings) -> Rules:
    from headrace.kafka.interface import UnknownTopicError

    try:
        async with open_models(settings) as models:
            return models.log.rules_of(settings.worker.model_name)
    except UnknownTopicError:
        return {}


def _find(given: Sequence[Labelled]) -> Found:
    import os

    # BLAS threads beside those of the fits make both slower. It is read when numpy loads.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

    from headrace.learning.suspects import doubt

    return doubt(given, remark)


def _show(tasks: Sequence[Doubted]) -> None:
    from rich.table import Table
    from rich.text import Text

    numbered = tasks[0].number is not None
    table = Table(box=None, pad_edge=False, expand=True)
    if numbered:
        table.add_column("row", no_wrap=True, justify="right")
    for name in ("given", "likely"):
        table.add_column(name, max_width=16, no_wrap=True, overflow="ellipsis")
        table.add_column("score", no_wrap=True)
    table.add_column("text", ratio=1, no_wrap=True, overflow="ellipsis")
    for task in tasks:
        cells = [task.given, f"{task.given_score:.3f}", task.answered, f"{task.score:.3f}", " ".join(task.text.split())]
        # Text, because a label or a text may look like markup.
        table.add_row(*map(Text, [f"{task.number}", *cells] if numbered else cells))
    console().print(table)


def _show_pairs(found: Found) -> None:
    """Which labels are given for which, the most frequent first."""
    from rich.table import Table
    from rich.text import Text

    from headrace.commands.terminal import heading

    joint = {(one.given, one.answered): one.joint for one in found.suspects}
    listed = Counter((one.given, one.answered) for one in found.suspects)
    pairs = sorted(joint, key=lambda pair: (-joint[pair], pair))[:SHOWN_PAIRS]
    table = Table(box=None, pad_edge=False)
    for name in ("given", "but likely"):
        table.add_column(name, max_width=28, no_wrap=True, overflow="ellipsis")
    for name in ("rows, estimated", "listed"):
        table.add_column(name, justify="right", no_wrap=True)
    for pair in pairs:
        table.add_row(*map(Text, (*pair, f"{joint[pair] * found.rows:,.0f}", f"{listed[pair]:,}")))
    shown = console()
    shown.print(heading("Labels that are given for another most often"))
    shown.print(table)


def _tell(found: Found, place: str, count: int) -> None:
    doubted = len(found.suspects)
    share = f" ({doubted / found.rows:.1%})" if doubted else ""
    left = [found.dropped, f"{found.alone:,} with a label of too few texts" if found.alone else ""]
    out = ", ".join(filter(None, left))
    remark(
        f"{doubted:,} of {quantity(found.rows, 'label')} of {place} {'is' if doubted == 1 else 'are'} doubted{share}"
        + (f"; the first {count:,} are given, --count N gives more" if doubted > count else "")
        + (f"; not looked at: {out}" if out else "")
    )
