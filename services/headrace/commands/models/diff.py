"""`headrace models diff`: what changed from one version to another."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from headrace.commands.common import Bootstrap, begin, console
from headrace.commands.models.show import number, time_of
from headrace.commands.models.topics import open_models
from headrace.core.label_names import label_name

if TYPE_CHECKING:
    from headrace.config import Settings
    from headrace_schemas.records import ModelVersion

Version = Annotated[str, typer.Argument(help="A version's name, the beginning of it or of its hash, or an alias.")]

ABSENT = "-"


class Difference(msgspec.Struct, frozen=True):
    """One thing that is not the same in both; ``change`` is the difference of two numbers, signed."""

    what: str
    before: str
    after: str
    change: str = ""


def diff(ctx: typer.Context, a: Version, b: Version, *, bootstrap: Bootstrap = None) -> None:
    """Show what changed from version A to version B: labels, metrics, size, what they were trained on, and how."""
    settings = begin(ctx, {"--bootstrap": ("kafka.bootstrap", bootstrap)})
    before, after = asyncio.run(_read(settings, a, b))
    from rich.table import Table
    from rich.text import Text

    table = Table("", before.version, after.version, "change", box=None, pad_edge=False)
    for one in differences(before, after):
        table.add_row(*(Text(cell, overflow="fold") for cell in (one.what, one.before, one.after, one.change)))
    console().print(table if table.row_count else "They do not differ.")


async def _read(settings: Settings, a: str, b: str) -> tuple[ModelVersion, ModelVersion]:
    from headrace.registry.versions import find_version

    name = settings.worker.model_name
    async with open_models(settings) as models:
        return find_version(models.log, name, a), find_version(models.log, name, b)


def differences(a: ModelVersion, b: ModelVersion) -> list[Difference]:
    """What is not the same in both; what neither has is left out."""
    return [
        *_named("created", time_of(a.created_at_ms), time_of(b.created_at_ms)),
        *_named("weights", a.weights_sha256, b.weights_sha256),
        *_named("parent", a.parent, b.parent),
        *_labels(a.labels, b.labels),
        *_figures("", _measures(a), _measures(b)),
        *_figures("metrics ", a.metrics, b.metrics),
        *_lineage(a, b),
        *_figures("compression ", a.compression, b.compression),
        *_texts("made with ", a.libraries, b.libraries),
    ]


def _measures(version: ModelVersion) -> dict[str, float]:
    return {"size": version.size} | ({} if version.threshold is None else {"threshold": version.threshold})


def _labels(a: tuple[str, ...], b: tuple[str, ...]) -> Iterator[Difference]:
    before, after = (set(map(label_name, labels)) for labels in (a, b))
    if gone := sorted(before - after):
        yield Difference("labels removed", ", ".join(gone), ABSENT, f"{-len(gone)}")
    if new := sorted(after - before):
        yield Difference("labels added", ABSENT, ", ".join(new), f"+{len(new)}")


def _lineage(a: ModelVersion, b: ModelVersion) -> Iterator[Difference]:
    one, other = a.lineage, b.lineage
    if one is None or other is None:
        sources = (None if lineage is None else lineage.source for lineage in (one, other))
        yield from _named("trained on", *sources)
        return
    yield from _named("trained on", one.source, other.source)
    yield from _named("digest of the rows", one.digest, other.digest)
    yield from _named("split", one.split, other.split)
    yield from _named("without holdout", one.holdout, other.holdout)
    yield from _figures("", {"rows": one.rows, "ranks": one.ranks}, {"rows": other.rows, "ranks": other.ranks})
    for end in ("first", "end"):
        ours, theirs = ({part.partition: getattr(part, end) for part in version.offsets} for version in (one, other))
        yield from _figures(f"{end} offset of partition ", ours, theirs)
    yield from _figures("left out, ", one.dropped, other.dropped)
    yield from _texts("recipe ", _settings_of(one.recipe), _settings_of(other.recipe))


def _settings_of(recipe: str | None) -> dict[str, str]:
    """A recipe's settings by path, such as ``convolution.dropout``."""
    if recipe is None:
        return {}
    return dict(_leaves("", msgspec.json.decode(recipe)))


def _leaves(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(f"{path}.{name}" if path else name, inner)
    else:
        yield path, str(value)


def _named(what: str, a: str | None, b: str | None) -> Iterator[Difference]:
    if a != b:
        yield Difference(what, a or ABSENT, b or ABSENT)


def _texts(what: str, a: Mapping[str, str], b: Mapping[str, str]) -> Iterator[Difference]:
    for name in sorted(a.keys() | b.keys()):
        yield from _named(f"{what}{name}", a.get(name), b.get(name))


def _figures(what: str, a: Mapping[Any, float], b: Mapping[Any, float]) -> Iterator[Difference]:
    for name in sorted(a.keys() | b.keys()):
        before, after = a.get(name), b.get(name)
        if before is None or after is None:
            yield from _named(f"{what}{name}", *(None if one is None else number(one) for one in (before, after)))
        elif before != after:
            sign = "+" if after > before else "-"
            yield Difference(f"{what}{name}", number(before), number(after), f"{sign}{number(abs(after - before))}")
