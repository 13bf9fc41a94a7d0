"""`headrace publish`: the rows of a file, or the lines of a stream, become requests."""

from __future__ import annotations

import enum
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import msgspec
import typer

from headrace.commands.common import (
    Bootstrap,
    Delimiter,
    Encoding,
    TextColumn,
    begin,
    cluster_of,
    remark,
    tell,
)
from headrace.commands.sending import STDIN, STDIN_NAME, producing, send_all, standard_input
from headrace.core.text import quantity
from headrace.files import DatasetError, InputError
from headrace.files.table import Kind, Reading, Row, find_kind, kind_of, read_file, read_stream

if TYPE_CHECKING:
    from headrace.config import Settings
    from headrace.kafka.interface import Outgoing
    from headrace_schemas.paths import RequestShape

OWN_ID = "id"
KEPT_BYTES = 64 << 20
"""If the records of a file take no more memory, they are kept from the check of the file until they are sent."""
_KEPT_OVERHEAD = 200
"""What a record takes in memory beside its value and key."""
_RECORD_OVERHEAD = 512
"""Bytes of a batch of one record beside key and value, and more."""


class Lines(enum.StrEnum):
    """The kind of rows: a text a line, JSON objects, or CSV."""

    TEXT = "text"
    JSONL = "jsonl"
    CSV = "csv"


KINDS = {Lines.TEXT: Kind.TEXT, Lines.JSONL: Kind.JSON, Lines.CSV: Kind.CSV}


class Columns(msgspec.Struct, frozen=True):
    """The columns of a row's text, id and key; without ``id`` a column of that name counts where there is one."""

    text: str = "text"
    id: str | None = None
    key: str | None = None

    def needed(self) -> list[str]:
        """The columns that every row needs."""
        return [self.text, *(one for one in (self.id, self.key) if one is not None)]


class Request(NamedTuple):
    """The request of a row; ``where`` names the file and the line."""

    where: str
    text: str
    id: str | None
    key: str | None


def publish(
    ctx: typer.Context,
    file: Annotated[
        str,
        typer.Argument(help="Lines of text (.txt, .log), JSON, CSV or Parquet, packed or not; - is standard input."),
    ],
    *,
    lines: Annotated[
        Lines | None, typer.Option(help="The kind of rows, if the name doesn't tell; text for standard input.")
    ] = None,
    text_column: TextColumn = "text",
    id_column: Annotated[
        str | None, typer.Option(help="The column of the ids; by default id, where there is one.")
    ] = None,
    key_column: Annotated[
        str | None, typer.Option("--key-column", "--key-field", help="The column that is the record's key.")
    ] = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    skip: Annotated[
        int, typer.Option(min=0, metavar="N", help="Skip the first N requests, which were published before.")
    ] = 0,
    timeout: Annotated[
        float | None, typer.Option(min=0.001, help="Seconds after which a request is answered expired.")
    ] = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Publish a request a row: a text a line, or a row of a table with text and, if you like, id.

    A file is checked as a whole before anything is sent. A line of standard input leaves as soon as it is there.
    """
    settings = begin(ctx, bootstrap)
    columns = Columns(text_column, id_column, key_column)
    reading = Reading(delimiter, encoding)
    most = settings.kafka.max_request_size

    def records(requests: Iterable[Request]) -> Iterator[Outgoing]:
        return make_records(requests, timeout=timeout, shape=settings.requests, largest=most)

    if _once(file):
        rows = _stream_rows(file, lines, columns, reading)
        _send(settings, records(make_requests(rows, columns)), skip, "")
        return
    path = Path(file)
    kind = KINDS[lines] if lines is not None else _kind_of_file(path)

    def rows_again(tell: Callable[[str], None] = lambda _: None) -> Iterator[Row]:
        return _guarded(_file_rows(path, kind, columns, reading, tell), kind, columns, asked=lines is not None)

    seen = Seen()
    total, kept = _checked(records(seen.watch(make_requests(rows_again(remark), columns, seen))))
    if warning := seen.warning():
        remark(warning)
    left_out = f"; left out {seen.without_text:,} without a text" if seen.without_text and kind is not Kind.TEXT else ""
    # A log may have grown since it was checked.
    again = islice(records(make_requests(rows_again(), columns)), total) if kept is None else iter(kept)
    _send(settings, again, skip, left_out)


def _checked(records: Iterator[Outgoing]) -> tuple[int, list[Outgoing] | None]:
    """How many ``records`` there are, and the records themselves where KEPT_BYTES hold them."""
    total, room = 0, KEPT_BYTES
    kept: list[Outgoing] = []
    for total, record in enumerate(records, start=1):  # noqa: B007 - counted
        if room < 0:
            continue
        room -= len(record.value or b"") + len(record.key or b"") + _KEPT_OVERHEAD
        kept.append(record)
        if room < 0:
            kept.clear()
    return total, None if room < 0 else kept


class Seen:
    """Remarks of the first pass over a file: findings that are no errors."""

    def __init__(self) -> None:
        self.without_text = 0
        self._ids: set[int] = set()
        self._again = 0
        self._first = ""

    def watch(self, requests: Iterable[Request]) -> Iterator[Request]:
        """Pass ``requests`` on, looking at their ids."""
        for request in requests:
            if request.id is not None:
                # Hashes, which are small whatever the ids are.
                known = len(self._ids)
                self._ids.add(hash(request.id))
                if len(self._ids) == known:
                    self._again += 1
                    self._first = self._first or f"{request.id[:60]!r} at {request.where}"
            yield request

    def warning(self) -> str:
        """A warning about repeated ids; "" without one."""
        if not self._again:
            return ""
        return (
            f"WARNING: {quantity(self._again, 'row has', 'rows have')} the id of an earlier one, first {self._first}: "
            "by their ids alone the answers can't be told apart"
        )


def make_requests(rows: Iterable[Row], columns: Columns, seen: Seen | None = None) -> Iterator[Request]:
    """The requests of ``rows``, without rows that have no text. Raises UserError naming the row."""
    for row in rows:
        text = row.string(columns.text)
        if not text.strip():
            if seen is not None:
                seen.without_text += 1
            continue
        id_ = _name(row, columns.id or OWN_ID)
        key = None if columns.key is None else _name(row, columns.key)
        if columns.key is not None and key is None:
            raise DatasetError(
                f"{row.where}: {columns.key}: is to be the key, so the row needs it, as a text or a whole number"
            )
        yield Request(row.where, text, id_, key)


def make_records(
    requests: Iterable[Request],
    *,
    timeout: float | None = None,
    shape: RequestShape | None = None,
    largest: int = 1 << 20,
) -> Iterator[Outgoing]:
    """The record of each request, as ``shape`` says. Raises DatasetError naming the row."""
    from headrace.client import ArgumentError, prepare
    from headrace_schemas import ClassifyRequest, RequestShape, WireError
    from headrace_schemas.paths import compile_writer

    encode = compile_writer(shape or RequestShape())
    for where, text, id_, key in requests:
        try:
            record = prepare(ClassifyRequest(text=text, id=id_), key=key, timeout=timeout, encode=encode)
        except (WireError, ArgumentError) as error:
            raise DatasetError(f"{where}: {error}") from error
        size = len(record.value or b"") + len(record.key or b"") + _RECORD_OVERHEAD
        if size > largest:
            raise DatasetError(f"{where}: takes {size:,} bytes, and kafka.max_request_size allows {largest:,}")
        yield record


def _name(row: Row, column: str) -> str | None:
    if isinstance(row.values.get(column), bool):
        raise DatasetError(f"{row.where}, {column!r}: must be a string or a whole number, not bool")
    return row.string(column, numbers=True) or None


def _once(file: str) -> bool:
    """Whether ``file`` can be read only once: standard input, or a pipe such as the shell's <(...)."""
    if file == STDIN:
        return True
    try:
        mode = Path(file).stat().st_mode
    except (OSError, ValueError):  # told by whoever opens it
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or stat.S_ISSOCK(mode)


def _kind_of_file(path: Path) -> Kind:
    kind = find_kind(path)
    if kind is None:
        raise DatasetError(
            f"{path}: its name does not say what its rows are. --lines text sends each line as a text, --lines csv "
            "reads a table"
        )
    return kind


def _stream_rows(file: str, lines: Lines | None, columns: Columns, reading: Reading) -> Iterator[Row]:
    kind = Kind.TEXT if lines is None else KINDS[lines]
    needed, also = _asked_of(kind, columns)
    if file == STDIN:
        stream, name = standard_input(), STDIN_NAME
    else:
        try:
            stream, name = Path(file).open("rb"), file  # noqa: SIM115 - read to its end by a thread
        except OSError as error:
            raise InputError(f"{file}: can't be read: {error.strerror}") from error
        if lines is None:
            kind = kind_of(file) or kind
    rows = read_stream(stream, name, needed, also=also, kind=kind, reading=reading, tell=remark)
    return _guarded(rows, kind, columns, asked=lines is not None)


def _file_rows(
    path: Path, kind: Kind, columns: Columns, reading: Reading, tell: Callable[[str], None]
) -> Iterator[Row]:
    needed, also = _asked_of(kind, columns)
    return read_file(path, needed, also=also, kind=kind, reading=reading, tell=tell)


def _asked_of(kind: Kind, columns: Columns) -> tuple[list[str], tuple[str, ...]]:
    """The columns that the rows have to have, and one that they may have. Raises DatasetError where lines have none."""
    if kind is Kind.TEXT and columns != Columns():
        raise DatasetError(
            "--text-column, --id-column and --key-column: a line of text has no columns; --lines jsonl or csv reads "
            "rows that have"
        )
    return columns.needed(), (OWN_ID,) if columns.id is None else ()


def _guarded(rows: Iterator[Row], kind: Kind, columns: Columns, *, asked: bool) -> Iterator[Row]:
    """``rows``; raises DatasetError when what is taken for lines of text, unless it was ``asked`` for, is a table."""
    begun = kind is not Kind.TEXT or asked
    for row in rows:
        if not begun and (text := row.string("text").strip()):
            begun = True
            if (seems := seen_as(text, columns.text)) is not None:
                raise DatasetError(
                    f"{row.where}: seems to be {seems.value.upper()} and not a text. --lines {seems.value} reads it as "
                    "that, --lines text sends each line as it is"
                )
        yield row


def seen_as(line: str, column: str) -> Lines | None:
    """What else than a text the first line of a file is: an object with the column, or a row that names it."""
    if line.startswith("{"):
        try:
            return Lines.JSONL if column in msgspec.json.decode(line, type=dict[str, msgspec.Raw]) else None
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return None
    named = [[one.strip().strip('"') for one in line.split(mark)] for mark in ",;\t|"]
    return Lines.CSV if any(column in fields and len(fields) > 1 for fields in named) else None


def _send(settings: Settings, records: Iterator[Outgoing], skip: int, left_out: str) -> None:
    from rich.progress import Progress, TextColumn, TimeElapsedColumn

    from headrace.commands.terminal import Terminal

    begun, topic = time.monotonic(), settings.topics.names().requests
    console = Terminal(stderr=True)
    columns = (TextColumn("published {task.completed:,.0f} requests"), TimeElapsedColumn())

    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=None)
        total = send_all(
            islice(records, skip, None),
            producing(cluster_of(settings), topic),
            noun="request",
            topic=topic,
            go_on=lambda sent: f"--skip {skip + sent} goes on behind them.",
            tell=lambda sent: progress.update(bar, completed=sent),
        )
    seconds = time.monotonic() - begun
    tell(f"published {quantity(total, 'request')} to {topic} in {seconds:.1f} s ({total / seconds:,.0f}/s){left_out}")
