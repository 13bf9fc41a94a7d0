"""`headrace models publish, promote, rollback, pin, unpin, prune, keygen`: commands that write the models topic."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.commands.common import Bootstrap, By, Models, Version, begin, open_models, remark, say, who
from headrace.core.text import quantity

if TYPE_CHECKING:
    from headrace.config import Settings
    from headrace_schemas.records import ModelAlias, ModelVersion


def publish(
    ctx: typer.Context,
    uri: Annotated[str, typer.Argument(metavar="URI", help="The artifact: a path or URI.")],
    *,
    alias: Annotated[str, typer.Option(help="The alias to point at it.")] = "champion",
    reason: Annotated[str, typer.Option(help="The reason, which is kept in the alias' record.")] = "by hand",
    move: Annotated[
        bool, typer.Option("--move", help="The version is known and its file has moved: record where it is now.")
    ] = False,
    by: By = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Record the artifact at URI as a version, signed where signing.key_file is set, and point an alias at it.

    An artifact outside the allowed places (store.allowed) is copied into trainer.store, where workers find it. Publish
    a version again to sign it with another key: it keeps its first time and, without --move, its first place.
    """
    from headrace.core.clock import SystemClock
    from headrace.model.signing import signer
    from headrace.registry.versions import adopt, version_record

    settings = begin(ctx, bootstrap)
    sign = signer(settings.signing.key_file, settings.signing.trusted)
    name, now_ms = settings.worker.model_name, SystemClock().now_ms()
    artifact, where = adopt(uri, base=settings.trainer.store, name=name, places=settings.places())
    version = sign(version_record(artifact, name=name, where=where, now_ms=now_ms))
    pointer = asyncio.run(_publish(settings, version, alias, reason, who(by), move=move))
    say(f"{pointer.name}: {pointer.alias} -> {pointer.version}")


async def _publish(
    settings: Settings, version: ModelVersion, alias: str, reason: str, by: str, *, move: bool
) -> ModelAlias:
    from headrace.core.clock import SystemClock
    from headrace.registry.aliases import move as moved
    from headrace.registry.versions import published_again

    async with open_models(settings) as models:
        known = models.log.versions.get((version.name, version.version))
        version = published_again(known, version, trusted=settings.signing.trusted, move=move)
        # In this order: a reader never sees an alias that points at a version it does not know.
        await models.writer.publish([version])
        await models.log.refresh()
        now = SystemClock().now_ms()
        pointer = moved(
            models.log, version.name, alias, version.version, reason=reason, now_ms=now, by_hand=True, by=by
        )
        await models.writer.publish([pointer])
        return pointer


def keygen(
    *,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the private key goes; it is never overwritten.")],
) -> None:
    """Make an ed25519 key. FILE, readable by its owner alone, is the signing.key_file of the processes that publish
    versions.

    It prints the public key, for signing.trusted of workers and trainers.
    """
    from headrace.model.signing import write_new_key

    say(write_new_key(out))


def prune(
    ctx: typer.Context,
    *,
    keep: Annotated[int, typer.Option(min=1, help="How many of the newest versions stay, whatever points at them.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be removed, and remove nothing.")] = False,
    bootstrap: Bootstrap = None,
) -> None:
    """Remove the artifacts and records of old versions, oldest first.

    Versions that an alias points at, or pointed at before, stay, so that a rollback is always possible. A file is
    removed only if it lies in an allowed place (store.allowed), if its record is signed (with signing.trusted), and if
    it is the artifact of the record. Otherwise the record goes and the file stays.
    """
    settings = begin(ctx, bootstrap)
    asyncio.run(_prune(settings, keep, dry_run=dry_run))


async def _prune(settings: Settings, keep: int, *, dry_run: bool) -> None:
    from headrace.registry.versions import Removal, prunable, prune, remove_artifact

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
    say(f"{name}: {quantity(count, 'version')} removed, {total / 1e6:.1f} MB freed")


Alias = Annotated[str, typer.Option(help="The alias to move.")]
AliasArgument = Annotated[str, typer.Argument(metavar="[ALIAS]", help="The alias.")]
Reason = Annotated[str, typer.Option(help="The reason, which is kept in the record.")]
Check = Annotated[
    bool,
    typer.Option(help="Read the artifact first, as a worker will; --no-check where only workers reach the store."),
]

Decide = Callable[[Models, str, int], "ModelAlias"]
"""From the topic, the model's name and the time to the record to publish."""


def promote(
    ctx: typer.Context,
    version: Version,
    *,
    alias: Alias = "champion",
    reason: Reason = "by hand",
    by: By = None,
    check: Check = True,
    bootstrap: Bootstrap = None,
) -> None:
    """Point an alias at a version, whatever the gate said of it. Workers that follow the alias swap at once."""
    from headrace.commands.models.show import UNPROVEN
    from headrace.registry.aliases import move
    from headrace.registry.versions import find_version

    name_of = who(by)

    def decide(models: Models, name: str, now_ms: int) -> ModelAlias:
        found = find_version(models.log, name, version)
        if found.unproven:
            remark(f"WARNING: {found.version} is unproven: {UNPROVEN}")
        return move(models.log, name, alias, found.version, reason=reason, now_ms=now_ms, by_hand=True, by=name_of)

    _move(ctx, bootstrap, decide, check=check)


def rollback(
    ctx: typer.Context,
    *,
    alias: Alias = "champion",
    reason: Reason = "rolled back by hand",
    by: By = None,
    check: Check = True,
    bootstrap: Bootstrap = None,
) -> None:
    """Point an alias at the version that it pointed at before. A second rollback goes forward again."""
    from headrace.registry.aliases import roll_back

    name_of = who(by)

    def decide(models: Models, name: str, now_ms: int) -> ModelAlias:
        return roll_back(models.log, name, alias, reason=reason, now_ms=now_ms, by=name_of)

    _move(ctx, bootstrap, decide, check=check)


def pin(
    ctx: typer.Context,
    alias: AliasArgument = "champion",
    *,
    reason: Reason = "pinned by hand",
    by: By = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Keep an alias where it is: the trainer does not move it any more, and new versions become challengers."""
    _move(ctx, bootstrap, _pinning(alias, reason, who(by), pinned=True))


def unpin(
    ctx: typer.Context,
    alias: AliasArgument = "champion",
    *,
    reason: Reason = "unpinned by hand",
    by: By = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Let the trainer move an alias again."""
    _move(ctx, bootstrap, _pinning(alias, reason, who(by), pinned=False))


def _pinning(alias: str, reason: str, by: str, *, pinned: bool) -> Decide:
    from headrace.registry.aliases import set_pin

    def decide(models: Models, name: str, now_ms: int) -> ModelAlias:
        return set_pin(models.log, name, alias, pinned=pinned, reason=reason, now_ms=now_ms, by=by)

    return decide


def _move(ctx: typer.Context, bootstrap: str | None, decide: Decide, *, check: bool | None = None) -> None:
    """Publish the record of ``decide``. Its version has to be signed as the settings demand, and with ``check`` its
    artifact has to be readable; otherwise nothing is moved. ``check`` None: the alias stays at its version, so nothing
    is checked.
    """
    import msgspec

    from headrace.core.clock import SystemClock
    from headrace.model.signing import verify
    from headrace.registry.versions import load_version

    settings = begin(ctx, bootstrap)

    async def run() -> ModelAlias:
        async with open_models(settings) as models:
            clock = SystemClock()
            decided = decide(models, settings.worker.model_name, clock.now_ms())
            if check is not None:
                version = models.log.versions[decided.name, decided.version]
                verify(version, settings.signing.trusted)
                if check:
                    await asyncio.to_thread(load_version, version, settings.signing.trusted, settings.places())
            # Reading the artifact took time, and the alias moves only now.
            pointer = msgspec.structs.replace(decided, moved_at_ms=clock.now_ms())
            await models.writer.publish([pointer])
            return pointer

    pointer = asyncio.run(run())
    before = f", before {pointer.previous}" if pointer.previous else ""
    pinned = ", pinned" if pointer.pinned else ""
    say(f"{pointer.name}: {pointer.alias} -> {pointer.version}{before}{pinned}")
