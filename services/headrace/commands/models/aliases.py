"""`headrace models promote, rollback, pin, unpin`: aliases, moved by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.commands.common import Bootstrap, begin, say
from headrace.commands.models.topics import Models, open_models

if TYPE_CHECKING:
    from headrace_schemas.records import ModelAlias

Alias = Annotated[str, typer.Option(help="The alias to move.")]
AliasArgument = Annotated[str, typer.Argument(metavar="[ALIAS]", help="The alias.")]
Reason = Annotated[str, typer.Option(help="Why; it is kept in the record.")]
Check = Annotated[
    bool,
    typer.Option(help="Read the artifact first, as a worker will; --no-check where only workers reach the store."),
]

Decide = Callable[[Models, str, int], "ModelAlias"]
"""From the topic, the model's name and the time to the record to publish."""


def promote(
    ctx: typer.Context,
    version: Annotated[str, typer.Argument(help="A version's name, the beginning of it or of its hash, or an alias.")],
    *,
    alias: Alias = "champion",
    reason: Reason = "by hand",
    check: Check = True,
    bootstrap: Bootstrap = None,
) -> None:
    """Point an alias at a version, whatever the gate said of it. Workers that follow the alias swap at once."""
    from headrace.registry.aliases import move
    from headrace.registry.versions import find_version

    def decide(models: Models, name: str, now_ms: int) -> ModelAlias:
        found = find_version(models.log, name, version)
        return move(models.log, name, alias, found.version, reason=reason, now_ms=now_ms, by_hand=True)

    _move(ctx, bootstrap, decide, check=check)


def rollback(
    ctx: typer.Context,
    *,
    alias: Alias = "champion",
    reason: Reason = "rolled back by hand",
    check: Check = True,
    bootstrap: Bootstrap = None,
) -> None:
    """Point an alias at the version that it pointed at before. A second rollback goes forward again."""
    from headrace.registry.aliases import roll_back

    def decide(models: Models, name: str, now_ms: int) -> ModelAlias:
        return roll_back(models.log, name, alias, reason=reason, now_ms=now_ms)

    _move(ctx, bootstrap, decide, check=check)


def pin(
    ctx: typer.Context,
    alias: AliasArgument = "champion",
    *,
    reason: Reason = "pinned by hand",
    bootstrap: Bootstrap = None,
) -> None:
    """Keep an alias where it is: the trainer does not move it any more, and new versions become challengers."""
    _move(ctx, bootstrap, _pinning(alias, reason, pinned=True))


def unpin(
    ctx: typer.Context,
    alias: AliasArgument = "champion",
    *,
    reason: Reason = "unpinned by hand",
    bootstrap: Bootstrap = None,
) -> None:
    """Let the trainer move an alias again."""
    _move(ctx, bootstrap, _pinning(alias, reason, pinned=False))


def _pinning(alias: str, reason: str, *, pinned: bool) -> Decide:
    from headrace.registry.aliases import set_pin

    def decide(models: Models, name: str, now_ms: int) -> ModelAlias:
        return set_pin(models.log, name, alias, pinned=pinned, reason=reason, now_ms=now_ms)

    return decide


def _move(ctx: typer.Context, bootstrap: str | None, decide: Decide, *, check: bool | None = None) -> None:
    """Publish what ``decide`` gives. Its version has to be signed as the settings ask, and with ``check`` its artifact
    has to be readable too, or nothing is moved. None: the alias stays at its version, so nothing is looked at.
    """
    import msgspec

    from headrace.core.clock import SystemClock
    from headrace.model.signing import verify
    from headrace.registry.versions import load_version

    settings = begin(ctx, {"--bootstrap": ("kafka.bootstrap", bootstrap)})

    async def run() -> ModelAlias:
        async with open_models(settings) as models:
            clock = SystemClock()
            decided = decide(models, settings.worker.model_name, clock.now_ms())
            if check is not None:
                version = models.log.versions[decided.name, decided.version]
                verify(version, settings.signing.trusted)
                if check:
                    await asyncio.to_thread(load_version, version, settings.signing.trusted, settings.places())
            # Looking at the artifact took its time, and the alias moves only now.
            pointer = msgspec.structs.replace(decided, moved_at_ms=clock.now_ms())
            await models.writer.publish([pointer])
            return pointer

    pointer = asyncio.run(run())
    before = f", before {pointer.previous}" if pointer.previous else ""
    pinned = ", pinned" if pointer.pinned else ""
    say(f"{pointer.name}: {pointer.alias} -> {pointer.version}{before}{pinned}")
