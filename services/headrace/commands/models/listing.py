"""`headrace models list`: every version, and what points at it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import typer

from headrace.commands.common import Bootstrap, console, settings_from
from headrace.commands.models.opening import open_models

if TYPE_CHECKING:
    from rich.table import Table

    from headrace.config import Settings
    from headrace.registry.models_log import ModelsLog


def list_(ctx: typer.Context, *, bootstrap: Bootstrap = None) -> None:
    """List the versions, oldest first, with the aliases that point at them."""
    settings = settings_from(ctx, {"--bootstrap": ("kafka.bootstrap", bootstrap)}).settings
    console().print(asyncio.run(_read(settings)))


async def _read(settings: Settings) -> Table:
    async with open_models(settings) as models:
        return table(models.log)


def table(log: ModelsLog) -> Table:
    """A row a version."""
    from rich.table import Table

    shown = Table("model", "version", "aliases", "labels", "size", "uri", box=None, pad_edge=False)
    for version in sorted(log.versions.values(), key=lambda known: known.created_at_ms):
        aliases = [a.alias for a in log.aliases.values() if (a.name, a.version) == (version.name, version.version)]
        size = f"{version.size / 1e6:.1f} MB"
        shown.add_row(version.name, version.version, ", ".join(aliases), str(len(version.labels)), size, version.uri)
    return shown
