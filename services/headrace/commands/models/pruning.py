"""`headrace models prune`: old versions that nothing points at are removed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.commands.common import Bootstrap, begin, say
from headrace.commands.models.opening import open_models

if TYPE_CHECKING:
    from headrace.config import Settings


def prune(
    ctx: typer.Context,
    *,
    keep: Annotated[int, typer.Option(min=1, help="How many of the newest versions stay, whatever points at them.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and remove nothing.")] = False,
    bootstrap: Bootstrap = None,
) -> None:
    """Remove the artifacts and records of old versions, oldest first.

    What an alias points at stays, and what it pointed at before, so that a rollback always has somewhere to go.
    """
    settings = begin(ctx, {"--bootstrap": ("kafka.bootstrap", bootstrap)})
    asyncio.run(_prune(settings, keep, dry_run=dry_run))


async def _prune(settings: Settings, keep: int, *, dry_run: bool) -> None:
    from headrace.model import store
    from headrace.registry.pruning import prunable, prune

    name = settings.worker.model_name
    async with open_models(settings) as models:
        if dry_run:
            for version in prunable(models.log, name, keep):
                say(f"would remove {version.version}, {version.size / 1e6:.1f} MB at {version.uri}")
            return
        count = total = 0

        async def remove(uri: str) -> bool:
            return await asyncio.to_thread(store.remove, uri)

        async for version, freed in prune(models.log, models.writer, name, keep, remove=remove):
            say(f"removed {version.version}, {freed / 1e6:.1f} MB at {version.uri}")
            count, total = count + 1, total + freed
    say(f"{name}: {count} versions removed, {total / 1e6:.1f} MB freed")
