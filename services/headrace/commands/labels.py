"""`headrace labels`: labelled texts to learn from, published and erased."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from headrace.commands.common import (
    Bootstrap,
    Delimiter,
    Encoding,
    LabelColumn,
    LinesOfJson,
    TextColumn,
    begin,
    cluster_of,
    console,
    place_for,
    remark,
    say,
    tell,
)
from headrace.commands.erase import erase
from headrace.commands.label_rules import merge, rename, retire, rules
from headrace.commands.sending import STDIN, STDIN_NAME, Send, producing, send_all, standard_input
from headrace.commands.suggest import suggest
from headrace.commands.suspects import suspects
from headrace.core.clock import Clock, SystemClock
from headrace.core.errors import UserError
from headrace.core.text import quantity
from headrace.files.annotations import EXTRAS, Columns, read_labelled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from headrace.client.labels import Labelled
    from headrace.client.reviews import ReviewPublisher
    from headrace.config import Settings
    from headrace.files.annotations import Annotated as Told
    from headrace.files.table import Reading, Row
    from headrace.kafka.interface import Cluster, Outgoing
    from headrace.learning.data.labels import There
    from headrace.learning.data.machine_labels import MachineThere
    from headrace_schemas.records import Review

app = typer.Typer(no_args_is_help=True, add_completion=False)
Machine = Annotated[bool, typer.Option("--machine", help="The labels of teachers instead of people's.")]
for command in (suggest, suspects, rename, merge, retire, rules):
    app.command()(command)


@app.callback()
def labels() -> None:
    """Ask for labels, publish them for the trainer, look at them, and erase them."""


@app.command()
def publish(
    ctx: typer.Context,
    file: Annotated[
        Path, typer.Argument(help="Labelled texts: JSON, CSV or Parquet, packed or not; - for standard input.")
    ],
    *,
    text_column: TextColumn = "text",
    label_column: LabelColumn = "label",
    id_column: Annotated[
        str | None, typer.Option(help="The column of the ids; without it a text's words make its id.")
    ] = None,
    restore: Annotated[
        bool, typer.Option("--restore", help="Publish an export of `labels export` again, row by row as it is.")
    ] = False,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Publish a label a row. A label with the id of an earlier one replaces it.

    A file is checked as a whole before anything is sent. Rows that a training would leave out are left out: rows
    without words or label, duplicates, conflicting rows, texts longer than trainer.max_text_bytes. A row of standard
    input is sent at once; only empty and too long rows are left out.

    Exports of Label Studio and Argilla (JSON) are read as they are. The columns source, labelled_at_ms and by are kept.
    A row with a request's PARTITION@OFFSET in the column at, which `labels suggest` writes, is also published as a
    review where the request was answered without a label. A row with the id of a label in the column replaces, which
    `labels suspects` writes, takes the place of that label.
    """
    from headrace.files.table import Reading, read_file, read_stream

    settings = begin(ctx, bootstrap)
    if restore and id_column is not None:
        raise UserError("--restore takes the ids that `labels export` wrote, so --id-column has no place beside it.")
    topic = settings.topics.names().labels
    columns, reading = Columns(text_column, label_column, "id" if restore else id_column), Reading(delimiter, encoding)
    dropped, limits = Dropped(), Limits.of(settings)
    reviews = Reviews(settings.topics.names().results, SystemClock())
    if str(file) == STDIN:
        rows = read_stream(standard_input(), STDIN_NAME, columns.needed, also=EXTRAS, reading=reading, tell=remark)
        records = stream_records(rows, columns, limits, dropped, reviews)
    elif restore:
        rows = read_file(file, columns.needed, also=EXTRAS, reading=reading, tell=remark)
        # All of them, so that of a file with a bad row nothing is sent.
        records = iter(list(stream_records(rows, columns, limits, dropped, None)))
    else:
        records = file_records(file, columns, reading, limits, dropped, reviews)
    cluster = cluster_of(settings)
    total = send_all(
        records,
        reviewing(producing(cluster, topic), cluster, settings.topics.names().reviews, reviews),
        noun="label",
        topic=topic,
        go_on=lambda _: "All may be published again: a label replaces the one with its id.",
    )
    tell(
        f"published {quantity(total, 'label')} to {topic}"
        + (f"; left out: {words}" if (words := dropped.words()) else "")
    )
    if reviews.sent:
        tell(f"published {quantity(reviews.sent, 'review')} to {settings.topics.names().reviews}")
    if reviews.refused:
        remark(f"WARNING: {quantity(len(reviews.waiting), 'review was', 'reviews were')} not sent: {reviews.refused}")
    if dropped.first_too_long:
        remark(f"WARNING: too long to be learnt: {dropped.first_too_long}")


class Limits(msgspec.Struct, frozen=True):
    """The limits of labels: the bytes of a record and of a text, and the number of labels of a training."""

    record_bytes: int = 1 << 20
    text_bytes: int = 64 * 1024
    labels: int = 10_000

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """The limits of ``settings``, which hold for the trainer too."""
        return cls(settings.kafka.max_request_size, settings.trainer.max_text_bytes, settings.trainer.max_labels)


class Dropped:
    """Counts the rows that were left out, by reason."""

    def __init__(self) -> None:
        self.cleaned = ""
        self.empty = 0
        self.too_long = 0
        self.first_too_long = ""

    def add_too_long(self, where: str, why: str) -> None:
        self.too_long += 1
        self.first_too_long = self.first_too_long or f"{where}: {why}"

    def words(self) -> str:
        """How many rows were left out for which reason; "" for none."""
        counts = {"empty": self.empty, "too long": self.too_long}
        return ", ".join([*filter(None, [self.cleaned]), *(f"{n:,} {why}" for why, n in counts.items() if n)])


class Reviews:
    """The reviews in the rows, beside their labels: those that wait to be sent, and the number of those that were.

    ``results`` is the topic of the answers. A row with the source of its text was labelled at the latest now.
    """

    def __init__(self, results: str, clock: Clock) -> None:
        self._results = results
        self._clock = clock
        self.waiting: deque[Review] = deque()
        self.sent = 0
        self.refused = ""

    def labelled(self, told: Told, id_: str, text: str, label: str) -> Labelled:
        """The label of a row, with the extras of ``told``. If the row has a review, it is kept for :meth:`send`."""
        from headrace.client.labels import Labelled
        from headrace_schemas.records import Review

        now_ms = self._clock.now_ms()
        dated = told.labelled_at_ms is None and (told.source is not None or told.at is not None)
        if told.at is not None and not told.answered:
            partition, offset = told.at
            review = Review(
                results=self._results,
                partition=partition,
                offset=offset,
                label=label,
                origin="person",
                reviewed_at_ms=told.labelled_at_ms or now_ms,
                id=told.id,
                by=told.by,
            )
            self.waiting.append(review)
        at_ms = now_ms if dated else told.labelled_at_ms
        return Labelled(id_, text, label, told.source, at_ms, told.by, told.guessed, told.version)

    async def send(self, publisher: ReviewPublisher) -> None:
        """Send the waiting reviews, unless the cluster refused them before."""
        from headrace.kafka.interface import NotAuthorizedError, UnknownTopicError

        if self.refused or not self.waiting:
            return
        waiting = [self.waiting.popleft() for _ in range(len(self.waiting))]
        try:
            await publisher.publish(waiting)
        except (NotAuthorizedError, UnknownTopicError) as error:
            self.refused = str(error)
            self.waiting.extendleft(reversed(waiting))
        else:
            self.sent += len(waiting)


def reviewing(
    connected: Callable[[], AbstractAsyncContextManager[Send]], cluster: Cluster, topic: str, reviews: Reviews
) -> Callable[[], AbstractAsyncContextManager[Send]]:
    """``connected``, with the waiting reviews sent to ``topic`` after each batch of labels.

    If the topic or the right to it is missing, labels are still published; the reviews are left, with the reason.
    """
    from headrace.client.reviews import ReviewPublisher

    @asynccontextmanager
    async def connected_for_both() -> AsyncIterator[Send]:
        publisher = ReviewPublisher(cluster, topic)

        async def both(send: Send, records: Sequence[Outgoing]) -> None:
            await send(records)
            await reviews.send(publisher)

        try:
            async with connected() as send:
                yield partial(both, send)
        finally:
            await publisher.stop()

    return connected_for_both


def file_records(
    file: Path, columns: Columns, reading: Reading, limits: Limits, dropped: Dropped, reviews: Reviews
) -> Iterator[Outgoing]:
    """The records of a file's rows, after a check of all rows. ``dropped`` counts the rows that are left out.

    Raises DatasetError naming an invalid row, and for more labels than a training takes.
    """
    from headrace.client.labels import label_record, text_ids, too_long
    from headrace.files import DatasetError
    from headrace.learning.data.files import Rows
    from headrace.learning.data.validation import check_labels, clean

    given = list(read_labelled(file, columns, reading, remark))
    cleaned = clean(Rows(tuple(one.text for one in given), tuple(one.label for one in given)))
    told = [given[place] for place in cleaned.places]
    if columns.id:
        ids = [one.id or "" for one in told]
    else:
        ids = [one.replaces or words for one, words in zip(told, text_ids(cleaned.rows.texts), strict=True)]
    if columns.id is not None and (again := len(ids) - len(set(ids))) > 0:
        remark(
            f"{file}: WARNING: {quantity(again, 'row has', 'rows have')} the id of an earlier one, whose label is "
            "replaced"
        )
    dropped.cleaned = cleaned.dropped()
    left: list[Outgoing] = []
    names: set[str] = set()
    for one, id_, text, label in zip(told, ids, cleaned.rows.texts, cleaned.rows.labels, strict=True):
        if (why := too_long(text, label, limits.text_bytes)) is not None:
            dropped.add_too_long(one.where, why)
            continue
        try:
            left.append(label_record(reviews.labelled(one, id_, text, label), limits.record_bytes))
        except DatasetError as error:
            raise DatasetError(f"{one.where}: {error}") from error
        names.add(label)
    check_labels(sorted(names), limits.labels)
    return iter(left)


def stream_records(
    rows: Iterator[Row], columns: Columns, limits: Limits, dropped: Dropped, reviews: Reviews | None
) -> Iterator[Outgoing]:
    """The record of each row as it comes. ``dropped`` counts the rows left out so far. Without ``reviews`` rows are
    taken as they are.

    Raises DatasetError naming the row that is none.
    """
    from headrace.client.labels import Labelled, label_record, text_ids, too_long
    from headrace.core.text import label_name
    from headrace.files import DatasetError
    from headrace.files.annotations import extras_of

    for row in rows:
        text, label = row.string(columns.text), label_name(row.string(columns.label, numbers=True))
        (words,) = text_ids([text])
        if not words or not label:
            dropped.empty += 1
            continue
        if (why := too_long(text, label, limits.text_bytes)) is not None:
            dropped.add_too_long(row.where, why)
            continue
        told = extras_of(row)
        id_ = told.replaces or words if columns.id is None else row.string(columns.id, numbers=True)
        if reviews is None:
            one = Labelled(id_, text, label, told.source, told.labelled_at_ms, told.by, told.guessed, told.version)
        else:
            one = reviews.labelled(told, id_, text, label)
        try:
            yield label_record(one, limits.record_bytes)
        except DatasetError as error:
            raise DatasetError(f"{row.where}: {error}") from error


app.command()(erase)


@app.command("list")
def list_labels(
    ctx: typer.Context,
    *,
    label: Annotated[str | None, typer.Option(help="Only texts with this label.")] = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="Show at most N.")] = 50,
    skip: Annotated[int, typer.Option(min=0, metavar="N", help="Leave out the first N.")] = 0,
    machine: Machine = False,
    as_json: LinesOfJson = False,
    bootstrap: Bootstrap = None,
) -> None:
    """List the labels that the topic holds now: id, label and text. A label that the trainer can't use says why.

    With --machine it lists labels of teachers: teacher, score, label and text.
    """
    import msgspec
    from rich.table import Table
    from rich.text import Text

    from headrace.core.text import label_name

    settings = begin(ctx, bootstrap)
    names = settings.topics.names()
    topic = names.machine_labels if machine else names.labels
    wanted = None if label is None else label_name(label)
    found: Sequence[There | MachineThere] = asyncio.run(
        (_read_machine if machine else _read)(cluster_of(settings), topic)
    )
    there = [one for one in found if wanted in (None, one.label)]
    shown = there[skip : skip + limit]
    if as_json:
        for one in shown:
            say(msgspec.json.encode(one).decode())
        return
    table = Table(*(("teacher", "score") if machine else ("id",)), "label", "text", box=None, pad_edge=False)
    for one in shown:
        cells = one.cells() if one.error is None else (*one.cells()[:-1], f"(can't be used: {one.error})")
        table.add_row(
            *(Text(cell, overflow="fold") for cell in cells[:-1]),
            Text(cells[-1], "", overflow="ellipsis", no_wrap=True),
        )
    if shown:
        console().print(table)
    say(
        f"{len(shown):,} of {quantity(len(there), 'label')} on {topic}"
        + (f"; --skip {skip + limit} shows more" if skip + limit < len(there) else "")
    )


@app.command()
def export(
    ctx: typer.Context,
    file: Annotated[str, typer.Argument(help="Where they go: .jsonl or .csv, which `headrace train` reads.")],
    *,
    machine: Machine = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
    bootstrap: Bootstrap = None,
) -> None:
    """Write the labels that the topic holds now to a file; `labels publish --restore` publishes them again.

    A row has id, text and label, and source, labelled_at_ms and by if known. Unusable labels are left out. With
    --machine a row has text, label, score, teacher and, in .jsonl, all scores.
    """
    from headrace.learning.data.labels import There, check_suffix, write_labels
    from headrace.learning.data.machine_labels import MachineThere, write_machine_labels

    check_suffix(file)
    where = place_for(file, force=force)
    settings = begin(ctx, bootstrap)
    names = settings.topics.names()
    topic = names.machine_labels if machine else names.labels
    there: Sequence[There | MachineThere] = asyncio.run(
        (_read_machine if machine else _read)(cluster_of(settings), topic)
    )
    usable = [one for one in there if one.error is None]
    if not usable:
        raise UserError(f"{topic} holds no label that can be used, so {file} was not written.")
    if machine:
        write_machine_labels(where, [one for one in usable if isinstance(one, MachineThere)])
    else:
        write_labels(where, [one for one in usable if isinstance(one, There)])
    left_out = f"; left out {len(there) - len(usable):,} that can't be used" if len(usable) < len(there) else ""
    say(f"wrote {quantity(len(usable), 'label')} of {topic} to {file}{left_out}")


async def _read_machine(cluster: Cluster, topic: str) -> list[MachineThere]:
    from headrace.learning.data.machine_labels import machine_there, read_machine_labels

    return machine_there(await read_machine_labels(cluster, topic))


async def _read(cluster: Cluster, topic: str) -> list[There]:
    from headrace.learning.data.labels import read_labels

    return await read_labels(cluster, topic)
