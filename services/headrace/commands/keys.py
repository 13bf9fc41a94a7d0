"""`headrace keys`: who may come to the gateway, and `headrace usage`: what each API key asked of it."""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, NamedTuple

import msgspec
import typer

from headrace.commands.common import Bootstrap, By, LinesOfJson, begin, cluster_of, remark, say, who
from headrace.core.clock import SystemClock
from headrace.core.errors import UserError
from headrace.core.text import quantity
from headrace.core.usage import MONTH, totals
from headrace.security.api_keys import TENANT, KeyRole

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from headrace.config import Settings
    from headrace.registry.compacted_topics import KeysLog, KeysWriter
    from headrace_schemas.records import ApiKey, Usage

app = typer.Typer(no_args_is_help=True, add_completion=False)


class ApiKeyError(UserError):
    """An API key can't be made, or is not there."""

    exit_code = 2


@app.callback()
def keys() -> None:
    """Make, list and revoke the API keys of the gateway."""


@app.command()
def add(
    ctx: typer.Context,
    *,
    role: Annotated[
        list[KeyRole] | None, typer.Option("--role", help="What the key allows; may be repeated. By default client.")
    ] = None,
    tenant: Annotated[
        str | None, typer.Option(metavar="NAME", help="Whose answers it sees: those asked for with keys of this name.")
    ] = None,
    texts_per_second: Annotated[
        float | None, typer.Option(min=0.001, help="How many texts a gateway takes with it, over time.")
    ] = None,
    burst: Annotated[
        float | None, typer.Option(min=1, help="How many texts may come at once; by default those of ten seconds.")
    ] = None,
    note: Annotated[str | None, typer.Option(help="What it is for, to find it again.")] = None,
    by: By = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Make an API key and print its token, once: only a hash of it is kept, on the keys topic."""
    from headrace.security.api_keys import make_key

    if tenant is not None and not re.fullmatch(TENANT, tenant):
        raise ApiKeyError("--tenant: 1 to 249 letters, digits, '.', '_' and '-' are allowed.")
    if burst is not None and texts_per_second is None:
        raise ApiKeyError("--burst goes with --texts-per-second: without a rate there is nothing to exceed.")
    settings = begin(ctx, bootstrap)
    token, record = make_key(
        set(role or [KeyRole.CLIENT]),
        now_ms=SystemClock().now_ms(),
        tenant=tenant,
        texts_per_second=texts_per_second,
        burst=burst,
        note=note,
        by=who(by),
    )

    async def run() -> None:
        async with open_keys(settings) as opened:
            await opened.writer.publish([record])

    asyncio.run(run())
    say(token)
    remark(f"Key {record.id} ({', '.join(record.roles)}). The token is shown this once; `headrace keys list` has none.")


@app.command("list")
def list_(ctx: typer.Context, *, lines: LinesOfJson = False, bootstrap: Bootstrap = None) -> None:
    """Show the API keys, without tokens or hashes."""
    settings = begin(ctx, bootstrap)

    async def run() -> list[ApiKey]:
        async with open_keys(settings) as opened:
            return sorted(opened.log.keys.values(), key=lambda one: one.created_at_ms)

    found = asyncio.run(run())
    if not found and not lines:
        say("there is no API key; `headrace keys add` makes one")
    for one in found:
        say(_as_json(one) if lines else "  ".join(_described(one)))


@app.command()
def revoke(
    ctx: typer.Context,
    id_: Annotated[str, typer.Argument(metavar="ID", help="The key's id, which stands in its token too.")],
    *,
    by: By = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Revoke an API key: running gateways refuse it within a second."""
    from headrace.security.api_keys import revoked

    settings = begin(ctx, bootstrap)

    async def run() -> ApiKey:
        async with open_keys(settings) as opened:
            key = opened.log.keys.get(id_)
            if key is None:
                raise ApiKeyError(f"There is no API key {id_!r}; `headrace keys list` shows those that there are.")
            if key.revoked_at_ms is None:
                key = revoked(key, now_ms=SystemClock().now_ms(), by=who(by))
                await opened.writer.publish([key])
            return key

    key = asyncio.run(run())
    say(f"{key.id}: revoked at {_time(key.revoked_at_ms or 0)}")


class Opened(NamedTuple):
    """The keys as they were when the topic was opened, and what writes to it."""

    log: KeysLog
    writer: KeysWriter


@asynccontextmanager
async def open_keys(settings: Settings) -> AsyncIterator[Opened]:
    """Read the topic to its end, and close it afterwards. Raises a KafkaError."""
    from headrace.commands.common import StartedByUse
    from headrace.kafka.interface import connected
    from headrace.registry.compacted_topics import KeysLog, KeysWriter

    topic = settings.topics.names().keys
    cluster = cluster_of(settings)
    producer = cluster.producer()
    try:
        async with connected(KeysLog(cluster, topic)) as log:
            yield Opened(log, KeysWriter(StartedByUse(producer), topic))
    finally:
        await producer.stop()


def _described(key: ApiKey) -> list[str]:
    quota = "" if key.texts_per_second is None else f"{key.texts_per_second:g} texts/s"
    revoked = "" if key.revoked_at_ms is None else f"revoked {_time(key.revoked_at_ms)}"
    tenant = "" if key.tenant is None else f"tenant {key.tenant}"
    parts = [key.id, ",".join(key.roles), tenant, quota, _time(key.created_at_ms), revoked, key.note or ""]
    return [part for part in parts if part]


def _as_json(key: ApiKey) -> str:
    fields = {name: value for name, value in msgspec.structs.asdict(key).items() if name != "hash"}
    return msgspec.json.encode(fields).decode()


def _time(ms: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def usage(
    ctx: typer.Context,
    *,
    month: Annotated[
        str | None, typer.Option(metavar="YYYY-MM", help="The month, in UTC; by default this one.")
    ] = None,
    lines: LinesOfJson = False,
    bootstrap: Bootstrap = None,
) -> None:
    """Show how many texts were asked with each API key in a month, as the gateways wrote it down."""
    from headrace.core.spending import day_of

    if month is not None and not re.fullmatch(MONTH, month):
        raise ApiKeyError(f"--month is {month!r}: a month is written as 2026-01.")
    settings = begin(ctx, bootstrap)
    wanted = month or day_of(SystemClock().now_ms())[:7]

    async def run() -> list[Usage]:
        from headrace.kafka.interface import connected
        from headrace.registry.compacted_topics import UsageLog

        async with connected(UsageLog(cluster_of(settings), settings.topics.names().usage)) as log:
            return list(log.usages.values())

    found = totals(asyncio.run(run()), wanted)
    if lines:
        for one in found:
            say(msgspec.json.encode(one).decode())
        return
    if not found:
        say(f"nothing was asked in {wanted}")
    for one in found:
        tenant = f"  tenant {one.tenant}" if one.tenant else ""
        asked = f"{quantity(one.calls, 'call')}  {quantity(one.texts, 'text')}  {one.text_bytes:,} bytes"
        say(f"{one.api_key}{tenant}  {asked}")
