"""`headrace models list`: every version, what points at it, and what the gate said of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from headrace.commands.common import Bootstrap, begin, console, say
from headrace.commands.models.opening import open_models
from headrace.commands.models.wording import aliases_of, time_of

if TYPE_CHECKING:
    from rich.table import Table

    from headrace.config import Settings
    from headrace.registry.models_log import ModelsLog
    from headrace_schemas.records import ModelVersion

COLUMNS = ("model", "version", "aliases", "gate", "macro-F1", "labels", "size", "created", "uri")


def list_(
    ctx: typer.Context,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object a line, with all that is known.")] = False,
    bootstrap: Bootstrap = None,
) -> None:
    """List the versions, oldest first, with the aliases that point at them and the gate's verdict."""
    settings = begin(ctx, {"--bootstrap": ("kafka.bootstrap", bootstrap)})
    if as_json:
        for line in asyncio.run(_lines(settings)):
            say(line)
        return
    console().print(asyncio.run(_read(settings)))


async def _lines(settings: Settings) -> list[str]:
    async with open_models(settings) as models:
        return [as_line(models.log, version) for version in ordered(models.log)]


def as_line(log: ModelsLog, version: ModelVersion) -> str:
    """One version as a line of JSON: its record, the aliases that point at it, and the gate's verdict or null."""
    fields = {
        **msgspec.to_builtins(version),
        "aliases": aliases_of(log, version),
        "verdict": msgspec.to_builtins(log.verdicts.get((version.name, version.version))),
    }
    return msgspec.json.encode(fields).decode()


def ordered(log: ModelsLog) -> list[ModelVersion]:
    """Every version, oldest first."""
    return sorted(log.versions.values(), key=lambda known: (known.name, known.created_at_ms, known.version))


async def _read(settings: Settings) -> Table:
    async with open_models(settings) as models:
        return table(models.log)


def table(log: ModelsLog) -> Table:
    """A row a version."""
    from rich.table import Table
    from rich.text import Text

    shown = Table(*COLUMNS, box=None, pad_edge=False)
    for version in ordered(log):
        shown.add_row(*(Text(cell) for cell in row(log, version)))
    return shown


def row(log: ModelsLog, version: ModelVersion) -> tuple[str, ...]:
    """The cells of one version, in the order of COLUMNS."""
    verdict = log.verdicts.get((version.name, version.version))
    score = version.metrics.get("test_macro_f1")
    return (
        version.name,
        version.version,
        ", ".join(aliases_of(log, version)),
        "" if verdict is None else "passed" if verdict.promoted else "refused",
        "" if score is None else f"{score:.4f}",
        str(len(version.labels)),
        f"{version.size / 1e6:.2f} MB",
        time_of(version.created_at_ms),
        version.uri,
    )
