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
    from collections.abc import Iterator

    from rich.console import RenderableType

    from headrace.config import Settings
    from headrace.registry.models_log import ModelsLog
    from headrace_schemas.records import ModelVersion

COLUMNS = ("version", "aliases", "gate", "macro-F1", "labels", "size", "95 % of F1", "created", "uri")
NARROW = 6
"""So many of them fit 80 columns beside a version's whole name, which people copy."""
WITH_TIME = 116
"""Columns of a terminal that has room for the interval of macro-F1 and for the time too."""
WITH_URI = 180


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
    shown = console()
    for table in asyncio.run(_read(settings, shown.width)):
        shown.print(table)


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


async def _read(settings: Settings, width: int) -> list[RenderableType]:
    async with open_models(settings) as models:
        return list(tables(models.log, width))


def tables(log: ModelsLog, width: int) -> Iterator[RenderableType]:
    """A table for each model with a row a version, oldest first, and as many of COLUMNS as ``width`` has room for."""
    from rich.table import Table
    from rich.text import Text

    names = sorted({version.name for version in log.versions.values()})
    if not names:
        yield "There is no version. `headrace models publish FILE` adds one, and so does a trainer."
    for name in names:
        title = Text(f"model {name}") if len(names) > 1 else None
        shown = Table(title=title, title_justify="left", box=None, pad_edge=False)
        count = len(COLUMNS) if width >= WITH_URI else NARROW + 2 * (width >= WITH_TIME)
        for column in COLUMNS[:count]:
            shown.add_column(column, no_wrap=column == "version", overflow="fold")
        for version in ordered(log):
            if version.name != name:
                continue
            cells = row(log, version)
            shown.add_row(*(Text(cell) for cell in cells[:count]))
        yield shown


def row(log: ModelsLog, version: ModelVersion) -> tuple[str, ...]:
    """The cells of one version, in the order of COLUMNS."""
    verdict = log.verdicts.get((version.name, version.version))
    score, low, high = (version.metrics.get(f"test_macro_f1{end}") for end in ("", "_low", "_high"))
    return (
        version.version,
        ", ".join(aliases_of(log, version)),
        "" if verdict is None else "passed" if verdict.promoted else "refused",
        "" if score is None else f"{score:.4f}",
        str(len(version.labels)),
        f"{version.size / 1e6:.2f} MB",
        "" if low is None or high is None else f"{low:.3f}-{high:.3f}",
        time_of(version.created_at_ms),
        version.uri,
    )
