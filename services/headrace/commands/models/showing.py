"""`headrace models show`: everything that is known of one version."""

from __future__ import annotations

import asyncio
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from headrace.commands.common import Bootstrap, begin, console, say
from headrace.commands.models.opening import open_models
from headrace.commands.models.wording import aliases_of, number, time_of

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType

    from headrace.config import Settings
    from headrace_schemas.records import Lineage, ModelAlias, ModelVersion, Verdict


NAMES = 8
"""The least columns of a section's names: a hash beside the shortest ones fits 80 columns."""


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """A version with what is said of it elsewhere: the aliases that point at it, its verdict, and the moves that
    touched it as far as the log still has them, oldest first.
    """

    version: ModelVersion
    aliases: tuple[str, ...]
    verdict: Verdict | None
    moves: tuple[ModelAlias, ...]


def show(
    ctx: typer.Context,
    version: Annotated[str, typer.Argument(help="A version's name, the beginning of it or of its hash, or an alias.")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    bootstrap: Bootstrap = None,
) -> None:
    """Show a version: labels, metrics, what it was trained on, how it was compressed, the gate's checks, its moves."""
    settings = begin(ctx, {"--bootstrap": ("kafka.bootstrap", bootstrap)})
    shown = asyncio.run(_read(settings, version))
    if as_json:
        say(msgspec.json.format(msgspec.json.encode(msgspec.to_builtins(shown))).decode())
        return
    for part in page(shown):
        # The terminal wraps what can't be folded, so that it is copied whole.
        console().print(part, soft_wrap=True)


async def _read(settings: Settings, wanted: str) -> Shown:
    from headrace.registry.finding import find_version
    from headrace.registry.history import alias_moves

    name = settings.worker.model_name
    async with open_models(settings) as models:
        version = find_version(models.log, name, wanted)
        moves = await alias_moves(models.cluster, settings.topics.names().models, name)
        return Shown(
            version=version,
            aliases=tuple(aliases_of(models.log, version)),
            verdict=models.log.verdicts.get((name, version.version)),
            moves=tuple(one.alias for one in moves if version.version in (one.alias.version, one.alias.previous)),
        )


def page(shown: Shown) -> Iterator[RenderableType]:
    """The parts of the page, each a heading with its rows; a part of which nothing is known is left out."""
    version = shown.version
    yield _rows(f"{version.name} {version.version}", _about(shown))
    yield _rows("labels", [(str(len(version.labels)), ", ".join(version.labels))])
    yield from _figures("metrics", version.metrics)
    if version.untested:
        count = f"{len(version.untested):,} of {len(version.labels):,} labels"
        yield _rows("not tested", [(count, ", ".join(version.untested))])
    if version.lineage is not None:
        yield _rows("trained on", list(_lineage(version.lineage)))
    yield from _figures("compression", version.compression)
    if version.libraries:
        yield _rows("made with", sorted(version.libraries.items()))
    if shown.verdict is not None:
        yield from _verdict(shown.verdict)
    if shown.moves:
        yield _rows("moves", [_move(move, version.version) for move in shown.moves])


def _about(shown: Shown) -> list[tuple[str, str]]:
    version = shown.version
    facts = [
        ("aliases", ", ".join(shown.aliases) or "none"),
        ("created", time_of(version.created_at_ms)),
        ("artifact", version.uri),
        ("size", f"{version.size:,} bytes"),
        ("sha256", version.sha256),
        ("weights", version.weights_sha256),
        ("signed by", version.signed_by),
        ("parent", version.parent),
        ("abstains below", None if version.threshold is None else number(version.threshold)),
    ]
    return [(name, value) for name, value in facts if value is not None]


def _lineage(lineage: Lineage) -> Iterator[tuple[str, str]]:
    yield "source", lineage.source
    yield "rows", f"{lineage.rows:,}"
    yield "digest", lineage.digest
    if lineage.split is not None:
        open_to_all = " (no key: who writes labels can choose what is tested on)"
        yield "split", lineage.split + (open_to_all if lineage.split.startswith("unkeyed/") else "")
    if lineage.holdout is not None:
        yield "without holdout", lineage.holdout
    for what, names in (
        ("never learnt", lineage.unlearnt),
        ("lent by test", lineage.lent),
        ("lent to test", lineage.borrowed),
    ):
        if names:
            yield what, f"{len(names):,} {'label' if len(names) == 1 else 'labels'}: {', '.join(names)}"
    for part in lineage.offsets:
        yield f"partition {part.partition}", f"offsets {part.first} to {part.end} (not included)"
    for reason, count in sorted(lineage.dropped.items()):
        yield f"left out, {reason}", f"{count:,}"
    yield "ranks", str(lineage.ranks)
    if lineage.recipe is not None:
        yield "recipe", lineage.recipe


def _verdict(verdict: Verdict) -> Iterator[RenderableType]:
    decision = "passed" if verdict.promoted else "refused"
    yield _rows(
        "gate",
        [
            (decision, f"{time_of(verdict.decided_at_ms)}, against {verdict.champion or 'no champion'}"),
            ("reason", verdict.reason),
            *((f"{'ok' if check.passed else 'FAILED'}  {check.name}", check.detail) for check in verdict.checks),
        ],
    )


def _move(move: ModelAlias, version: str) -> tuple[str, str]:
    came = f"{move.alias} -> {move.version}" if move.version == version else f"{move.alias} left for {move.version}"
    pinned = ", pinned" if move.pinned else ""
    return time_of(move.moved_at_ms), f"{came}{pinned}: {move.reason or 'no reason given'}"


def _figures(title: str, figures: dict[str, float]) -> Iterator[RenderableType]:
    """The ends of an interval stand beside their figure."""
    ends = {f"{name}_{end}" for name in figures for end in ("low", "high")}
    rows = [(name, _figure(figures, name)) for name in sorted(figures.keys() - ends)]
    if rows:
        yield _rows(title, rows)


def _figure(figures: dict[str, float], name: str) -> str:
    low, high = (figures.get(f"{name}_{end}") for end in ("low", "high"))
    beside = "" if low is None or high is None else f" (95 % interval {number(low)} to {number(high)})"
    return number(figures[name]) + beside


def _rows(title: str, rows: Sequence[tuple[str, str]]) -> RenderableType:
    return Section(title, tuple(rows))


class Section:
    """A heading, and rows of a name and a value, which goes on below itself where it is long.

    A word is never broken, whatever the width: people copy hashes and URIs. A terminal wraps what is longer than it.
    """

    def __init__(self, title: str, rows: tuple[tuple[str, str], ...]) -> None:
        self.title = title
        self.rows = rows

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        from rich.text import Text

        names = max(NAMES, *(len(name) for name, _ in self.rows)) + 2
        room = max(options.max_width - names - 2, 20)
        yield Text(self.title, style="bold", no_wrap=True, overflow="ignore")
        for name, value in self.rows:
            first, *others = textwrap.wrap(value, room, break_long_words=False, break_on_hyphens=False) or [""]
            lines = (f"  {name:<{names}}{first}", *(" " * (names + 2) + line for line in others))
            yield Text("\n".join(lines), no_wrap=True, overflow="ignore")
