"""`headrace models publish`: an artifact as a version, and an alias that points at it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.commands.common import Bootstrap, settings_from
from headrace.commands.models.opening import open_models

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.config import Settings
    from headrace_schemas.records import ModelsRecord


def publish(
    ctx: typer.Context,
    uri: Annotated[str, typer.Argument(metavar="URI", help="The artifact, where every worker can read it.")],
    *,
    alias: Annotated[str, typer.Option(help="The alias to point at it.")] = "champion",
    bootstrap: Bootstrap = None,
) -> None:
    """Record the artifact at URI as a version, and point an alias at it."""
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
    # In this order: a reader never sees an alias that points at a version it does not know.
    asyncio.run(_write(settings, [version, pointer]))
    print(f"{name}: {alias} -> {artifact.version}")


async def _write(settings: Settings, records: Sequence[ModelsRecord]) -> None:
    async with open_models(settings) as models:
        await models.writer.publish(records)
