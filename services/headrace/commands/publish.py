"""`headrace publish`: the lines of a file become requests."""

from __future__ import annotations

import asyncio
import enum
import itertools
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from headrace.commands.common import Bootstrap, begin, client_of, say
from headrace.core.errors import UserError

if TYPE_CHECKING:
    from headrace.config import Settings
    from headrace.kafka.interface import Outgoing
    from headrace_schemas.paths import RequestShape

CHUNK = 10_000


class Lines(enum.StrEnum):
    """What a line is: a text, or a JSON object with text and id."""

    TEXT = "text"
    JSONL = "jsonl"


class InputError(UserError):
    """The file can't be read, or a line of it is no request."""


def publish(
    ctx: typer.Context,
    file: Annotated[str, typer.Argument(help="A file with a request a line; - for standard input.")],
    *,
    lines: Annotated[Lines | None, typer.Option(help="By default by the name: .jsonl, else text.")] = None,
    key_field: Annotated[str | None, typer.Option(help="The field of a JSON line that is the record's key.")] = None,
    timeout: Annotated[
        float | None, typer.Option(min=0.001, help="Seconds after which a request is answered expired.")
    ] = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Publish a request a line: a text, or JSON with text and, if you like, id. Other fields are ignored."""
    settings = begin(ctx, {"--bootstrap": ("kafka.bootstrap", bootstrap)})
    form = lines or (Lines.JSONL if file.endswith(".jsonl") else Lines.TEXT)
    try:
        with sys.stdin.buffer if file == "-" else open(file, "rb") as source:  # noqa: PTH123 - or standard input
            shape = settings.requests
            records = read_requests(source, form, key_field=key_field, timeout=timeout, shape=shape)
            asyncio.run(_publish(settings, records))
    except OSError as error:
        raise InputError(f"{file}: can't be read ({error.strerror or error}).") from error


def read_requests(
    lines: Iterable[bytes],
    form: Lines,
    *,
    key_field: str | None = None,
    timeout: float | None = None,
    shape: RequestShape | None = None,
) -> Iterator[Outgoing]:
    """Make a record of each line that is not empty, as ``shape`` says. Raises InputError naming the line."""
    import msgspec

    from headrace.client import prepare
    from headrace_schemas import ClassifyRequest, RequestShape, WireError, decode_request
    from headrace_schemas.writing import compile_writer

    encode = compile_writer(shape or RequestShape())
    if key_field is not None and form is Lines.TEXT:
        raise InputError("--key-field: a line of text has no fields; use --lines jsonl.")
    fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
    for number, line in enumerate(lines, start=1):
        content = line.strip()
        if not content:
            continue
        key = None
        try:
            if form is Lines.TEXT:
                request = ClassifyRequest(text=content.decode())
            else:
                request = decode_request(content)
                if key_field is not None:
                    key = _key(fields.decode(content).get(key_field), key_field)
            yield prepare(request, key=key, timeout=timeout, encode=encode)
        except (WireError, ValueError) as error:
            raise InputError(f"line {number}: {error}") from error


def _key(value: msgspec.Raw | None, name: str) -> str:
    decoded = None if value is None else msgspec.json.decode(value)
    if isinstance(decoded, str | int) and not isinstance(decoded, bool):
        return str(decoded)
    raise ValueError(f"{name}: is to be the key, so the line needs it, as a text or a whole number")


async def _publish(settings: Settings, records: Iterator[Outgoing]) -> None:
    from rich.progress import Progress, TextColumn, TimeElapsedColumn

    from headrace.terminal import Terminal

    begun = time.monotonic()
    total = 0
    console = Terminal(stderr=True)
    columns = (TextColumn("published {task.completed:,.0f} requests"), TimeElapsedColumn())
    async with client_of(settings) as client:
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            bar = progress.add_task("", total=None)
            while chunk := list(itertools.islice(records, CHUNK)):
                total += len(await client.publish_many(chunk))
                progress.update(bar, completed=total)
    seconds = time.monotonic() - begun
    say(
        f"published {total:,} requests to {settings.topics.names().requests} "
        f"in {seconds:.1f} s ({total / seconds:,.0f}/s)"
    )
