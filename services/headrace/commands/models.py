"""`headrace models`: versions and aliases on the models topic, by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.commands.common import Bootstrap, console, settings_from

if TYPE_CHECKING:
    from headrace.registry.models_log import ModelsLog
    from headrace.registry.models_writer import ModelsWriter

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.callback()
def models() -> None:
    """Publish versions and look at them."""


@app.command()
def publish(
    ctx: typer.Context,
    uri: Annotated[str, typer.Argument(metavar="URI", help="The artifact, where every worker can read it.")],
    *,
    alias: Annotated[str, typer.Option(help="The alias to point at it.")] = "champion",
    bootstrap: Bootstrap = None,
) -> None:
    """Record the artifact at URI as a version, and point an alias at it. Workers take it when they start."""
    from headrace.core.clock import SystemClock
    from headrace.model.artifact import load
    from headrace.registry.versions import version_record
    from headrace_schemas.records import ModelAlias

    settings = settings_from(ctx, {"--bootstrap": ("kafka.bootstrap", bootstrap)}).settings
    name = settings.worker.model_name
    artifact = load(uri)
    now = SystemClock().now_ms()
    version = version_record(artifact, name=name, uri=uri, now_ms=now)
    pointer = ModelAlias(name=name, alias=alias, version=artifact.version, moved_at_ms=now, reason="by hand")

    async def write(_: ModelsLog, writer: ModelsWriter) -> None:
        # In this order: a reader never sees an alias that points at a version it does not know.
        await writer.publish([version, pointer])

    asyncio.run(_with_models(ctx, bootstrap, write))
    print(f"{name}: {alias} -> {artifact.version}")


@app.command(name="list")
def list_(ctx: typer.Context, *, bootstrap: Bootstrap = None) -> None:
    """List the versions, oldest first, with the aliases that point at them."""
    from rich.table import Table

    table = Table("model", "version", "aliases", "labels", "size", "uri", box=None, pad_edge=False)

    async def read(log: ModelsLog, _: ModelsWriter) -> None:
        for version in sorted(log.versions.values(), key=lambda known: known.created_at_ms):
            aliases = [a.alias for a in log.aliases.values() if (a.name, a.version) == (version.name, version.version)]
            size = f"{version.size / 1e6:.1f} MB"
            table.add_row(
                version.name, version.version, ", ".join(aliases), str(len(version.labels)), size, version.uri
            )

    asyncio.run(_with_models(ctx, bootstrap, read))
    console().print(table)


async def _with_models(
    ctx: typer.Context, bootstrap: str | None, act: Callable[[ModelsLog, ModelsWriter], Awaitable[None]]
) -> None:
    from headrace.kafka.aio import AioKafkaCluster
    from headrace.registry.models_log import ModelsLog
    from headrace.registry.models_writer import ModelsWriter

    settings = settings_from(ctx, {"--bootstrap": ("kafka.bootstrap", bootstrap)}).settings
    topic = settings.topics.names().models
    cluster = AioKafkaCluster(settings.kafka)
    log, producer = ModelsLog(cluster, topic), cluster.producer()
    try:
        await log.start()
        await producer.start()
        await act(log, ModelsWriter(producer, topic))
    finally:
        await producer.stop()
        await log.stop()
