"""`headrace models publish`: an artifact as a version, and an alias that points at it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.commands.common import Bootstrap, begin, say
from headrace.commands.models.opening import open_models

if TYPE_CHECKING:
    from headrace.config import Settings
    from headrace_schemas.records import ModelAlias, ModelVersion


def publish(
    ctx: typer.Context,
    uri: Annotated[str, typer.Argument(metavar="URI", help="The artifact: a path or URI.")],
    *,
    alias: Annotated[str, typer.Option(help="The alias to point at it.")] = "champion",
    reason: Annotated[str, typer.Option(help="Why; it is kept in the alias' record.")] = "by hand",
    move: Annotated[
        bool, typer.Option("--move", help="The version is known and its file has moved: record where it is now.")
    ] = False,
    bootstrap: Bootstrap = None,
) -> None:
    """Record the artifact at URI as a version, signed where signing.key_file is set, and point an alias at it.

    An artifact that lies in no allowed place (store.allowed) is copied into trainer.store, where workers find it.
    Publish a version again to have it signed by another key. The time and, without --move, the place of the first
    time stay.
    """
    from headrace.core.clock import SystemClock
    from headrace.model.signing import signer
    from headrace.registry.adopting import adopt
    from headrace.registry.versions import version_record

    settings = begin(ctx, {"--bootstrap": ("kafka.bootstrap", bootstrap)})
    sign = signer(settings.signing.key_file, settings.signing.trusted)
    name, now_ms = settings.worker.model_name, SystemClock().now_ms()
    artifact, where = adopt(uri, base=settings.trainer.store, name=name, places=settings.places())
    version = sign(version_record(artifact, name=name, where=where, now_ms=now_ms))
    pointer = asyncio.run(_publish(settings, version, alias, reason, move=move))
    say(f"{pointer.name}: {pointer.alias} -> {pointer.version}")


async def _publish(settings: Settings, version: ModelVersion, alias: str, reason: str, *, move: bool) -> ModelAlias:
    from headrace.core.clock import SystemClock
    from headrace.registry.moving import move as moved
    from headrace.registry.versions import published_again

    async with open_models(settings) as models:
        known = models.log.versions.get((version.name, version.version))
        version = published_again(known, version, trusted=settings.signing.trusted, move=move)
        # In this order: a reader never sees an alias that points at a version it does not know.
        await models.writer.publish([version])
        await models.log.refresh()
        now = SystemClock().now_ms()
        pointer = moved(models.log, version.name, alias, version.version, reason=reason, now_ms=now, by_hand=True)
        await models.writer.publish([pointer])
        return pointer
