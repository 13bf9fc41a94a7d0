"""`headrace models prune`: old versions that nothing points at are removed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.commands.common import Bootstrap, begin, say
from headrace.commands.models.opening import open_models

if TYPE_CHECKING:
    from headrace.config import Settings
    from headrace_schemas.records import ModelVersion


def prune(
    ctx: typer.Context,
    *,
    keep: Annotated[int, typer.Option(min=1, help="How many of the newest versions stay, whatever points at them.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and remove nothing.")] = False,
    bootstrap: Bootstrap = None,
) -> None:
    """Remove the artifacts and records of old versions, oldest first.

    What an alias points at stays, and what it pointed at before, so that a rollback always has somewhere to go. A file
    is removed only from an allowed place (store.allowed), only for a record that is signed where signing.trusted is
    set, and only when it is the artifact that the record is of. Otherwise the record goes and the file stays.
    """
    settings = begin(ctx, {"--bootstrap": ("kafka.bootstrap", bootstrap)})
    asyncio.run(_prune(settings, keep, dry_run=dry_run))


async def _prune(settings: Settings, keep: int, *, dry_run: bool) -> None:
    from headrace.registry.pruning import Removal, prunable, prune, remove_artifact

    name = settings.worker.model_name
    async with open_models(settings) as models:
        if dry_run:
            for version in prunable(models.log, name, keep):
                say(f"would remove {version.version}, {version.size / 1e6:.1f} MB at {version.uri}")
            return
        count = total = 0
        trusted, places = settings.signing.trusted, settings.places()

        async def remove(version: ModelVersion) -> Removal:
            return await asyncio.to_thread(remove_artifact, version, trusted, places)

        async for version, removal in prune(models.log, models.writer, name, keep, remove=remove):
            if removal.kept is None:
                say(f"removed {version.version}, {removal.freed / 1e6:.1f} MB at {version.uri}")
            else:
                say(f"removed the record of {version.version} alone, its file stays: {removal.kept}")
            count, total = count + 1, total + removal.freed
    say(f"{name}: {count} versions removed, {total / 1e6:.1f} MB freed")
