"""`headrace models list` and `headrace models show`: every version in a line each, or all that is known of one."""

from __future__ import annotations

import asyncio
import textwrap
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from headrace.commands.common import Bootstrap, OneJson, Version, begin, console, open_models, say
from headrace.core.text import quantity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console, ConsoleOptions, RenderableType

    from headrace.config import Settings
    from headrace.registry.compacted_topics import ModelsLog
    from headrace_schemas.records import Lineage, ModelAlias, ModelVersion, Verdict


def aliases_of(log: ModelsLog, version: ModelVersion) -> list[str]:
    """The aliases that point at ``version``; a pinned one says so."""
    return sorted(
        f"{pointer.alias} (pinned)" if pointer.pinned else pointer.alias
        for pointer in log.aliases.values()
        if (pointer.name, pointer.version) == (version.name, version.version)
    )


def time_of(moment_ms: int) -> str:
    """A time in UTC to the second; ``moment_ms`` are milliseconds since the Unix epoch."""
    try:
        return f"{datetime.fromtimestamp(moment_ms / 1000, UTC):%Y-%m-%d %H:%M:%SZ}"
    # A record on the topic may hold any number.
    except (ValueError, OverflowError, OSError):
        return f"{moment_ms} ms, which is no date"


def number(value: float) -> str:
    """A short, readable number: a whole one without a point, others with four decimals or so."""
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:,.1f}"


COLUMNS = ("version", "aliases", "gate", "macro-F1", "labels", "size", "95 % range", "created", "uri")
NARROW = 6
"""How many of them fit 80 columns beside a version's whole name, which people copy."""
WITH_TIME = 116
"""From so many columns on a terminal has room for the interval of macro-F1 and for the time."""
WITH_URI = 180


def list_(
    ctx: typer.Context,
    *,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON object a line, with all that is known.")
    ] = False,
    bootstrap: Bootstrap = None,
) -> None:
    """List the versions, oldest first, with the aliases that point at them and the gate's verdict."""
    settings = begin(ctx, bootstrap)
    if as_json:
        for line in asyncio.run(_lines(settings)):
            say(line)
        return
    shown = console()
    for table in asyncio.run(_read_versions(settings, shown.width)):
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


async def _read_versions(settings: Settings, width: int) -> list[RenderableType]:
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
        versions = [version for version in ordered(log) if version.name == name]
        rows = [row(log, version) for version in versions]
        count = len(COLUMNS) if width >= WITH_URI else NARROW + 2 * (width >= WITH_TIME)
        while count > 1 and _least_width(rows, count) > width:
            count -= 1
        for column in COLUMNS[:count]:
            shown.add_column(column, no_wrap=column != "aliases", overflow="fold")
        for cells in rows:
            shown.add_row(*(Text(cell) for cell in cells[:count]))
        yield shown


def _least_width(rows: Sequence[tuple[str, ...]], count: int) -> int:
    """The width of the first ``count`` columns if only the list of aliases is folded, between its words."""
    cells = [COLUMNS[:count], *(cells[:count] for cells in rows)]
    widths = [max(len(row_[0]) for row_ in cells)]
    if count > 1:
        widths.append(max(len(word) for row_ in cells for word in row_[1].split() or [""]))
    widths += [max(len(row_[number]) for row_ in cells) for number in range(2, count)]
    return sum(widths) + 2 * (count - 1)


def row(log: ModelsLog, version: ModelVersion) -> tuple[str, ...]:
    """The cells of one version, in the order of COLUMNS."""
    verdict = log.verdicts.get((version.name, version.version))
    score, low, high = (version.metrics.get(f"test_macro_f1{end}") for end in ("", "_low", "_high"))
    return (
        version.version,
        ", ".join(aliases_of(log, version)),
        _decision(version, verdict),
        "" if score is None else f"{score:.4f}",
        str(len(version.labels)),
        f"{version.size / 1e6:.2f} MB",
        "" if low is None or high is None else f"{low:.3f}-{high:.3f}",
        time_of(version.created_at_ms),
        version.uri,
    )


def _decision(version: ModelVersion, verdict: Verdict | None) -> str:
    if version.unproven:
        return "unproven"
    return "" if verdict is None else "passed" if verdict.promoted else "refused"


NAMES = 8
"""The least width of a section's names. A hash beside the shortest ones fits 80 columns."""


UNPROVEN = "no person labelled any of its rows, so its figures say only how far it agrees with its teachers"

LEAST_ROOM = 30
"""The width that a value needs beside its name."""


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """A version with the aliases that point at it, its verdict, and the moves from and to it that the log still has,
    oldest first.
    """

    version: ModelVersion
    aliases: tuple[str, ...]
    verdict: Verdict | None
    moves: tuple[ModelAlias, ...]


def show(
    ctx: typer.Context,
    version: Version,
    *,
    as_json: OneJson = False,
    bootstrap: Bootstrap = None,
) -> None:
    """Show a version: labels, metrics, what it was trained on, how it was compressed, the gate's checks, its moves."""
    settings = begin(ctx, bootstrap)
    shown = asyncio.run(_read(settings, version))
    if as_json:
        say(msgspec.json.format(msgspec.json.encode(msgspec.to_builtins(shown))).decode())
        return
    for number_, section in enumerate(page(shown)):
        # The terminal wraps long words, so that they can be copied whole.
        console().print(*(("",) if number_ else ()), section, sep="\n", soft_wrap=True)


async def _read(settings: Settings, wanted: str) -> Shown:
    from headrace.registry.compacted_topics import alias_moves
    from headrace.registry.versions import find_version

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
    """The sections of the page, each a heading with its rows. Empty sections are left out."""
    version = shown.version
    yield _rows(f"{version.name} {version.version}", _about(shown))
    yield _rows("labels", [(str(len(version.labels)), ", ".join(version.labels))])
    yield from _figures("metrics", version.metrics)
    if version.untested:
        count = f"{len(version.untested):,} of {quantity(len(version.labels), 'label')}"
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
    rows = [
        ("aliases", ", ".join(shown.aliases) or "none"),
        ("created", time_of(version.created_at_ms)),
        ("artifact", version.uri),
        ("size", f"{version.size:,} bytes"),
        ("sha256", version.sha256),
        ("weights", version.weights_sha256),
        ("signed by", version.signed_by),
        ("parent", version.parent),
        ("unproven", UNPROVEN if version.unproven else None),
        ("abstains below", None if version.threshold is None else number(version.threshold)),
    ]
    return [(name, value) for name, value in rows if value is not None]


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
            yield what, f"{quantity(len(names), 'label')}: {', '.join(names)}"
    if lineage.label_rules:
        rules = (f"{label} as {becomes or 'nothing'}" for label, becomes in sorted(lineage.label_rules.items()))
        yield "learnt", ", ".join(rules)
    for part in lineage.offsets:
        yield f"partition {part.partition}", f"offsets {part.first} to {part.end} (not included)"
    yield from _machine(lineage)
    for reason, count in sorted(lineage.dropped.items()):
        yield f"left out, {reason}", f"{count:,}"
    yield "ranks", str(lineage.ranks)
    if lineage.recipe is not None:
        yield from (("recipe", "\n".join(_settings_of(lineage.recipe))),)


def _machine(lineage: Lineage) -> Iterator[tuple[str, str]]:
    if lineage.teachers or lineage.machine_offsets:
        yield "machine rows", f"{lineage.machine_rows:,}, each counted {number(lineage.machine_weight)}"
    for teacher in lineage.teachers:
        weight = lineage.teacher_weights.get(teacher, 1.0)
        yield "teacher", teacher + ("" if weight == 1 else f", times {number(weight)} (trainer.sources)")
    for part in lineage.machine_offsets:
        yield f"machine labels {part.partition}", f"offsets {part.first} to {part.end} (not included)"


def _settings_of(recipe: str) -> Iterator[str]:
    """A recipe in JSON, one setting a line. If another trainer wrote something else, the text as it is."""
    try:
        settings = msgspec.json.decode(recipe, type=dict[str, Any])
    except msgspec.DecodeError:
        yield recipe
        return
    for name, value in settings.items():
        inner = value if isinstance(value, dict) else None
        for part, one in (inner or {"": value}).items():
            yield f"{name}{'.' if part else ''}{part} = {msgspec.json.encode(one).decode()}"


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
    by = f", by {move.by}" if move.by else ""
    return time_of(move.moved_at_ms), f"{came}{pinned}{by}: {move.reason or 'no reason given'}"


def _figures(title: str, figures: dict[str, float]) -> Iterator[RenderableType]:
    """Figures with their intervals in the same row."""
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
    """A heading, and rows of a name and a value. A long value goes on below itself.

    No word is broken, because people copy hashes and URIs. The terminal wraps longer words.
    """

    def __init__(self, title: str, rows: tuple[tuple[str, str], ...]) -> None:
        self.title = title
        self.rows = rows

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        from rich.text import Text

        names = max(NAMES, *(len(name) for name, _ in self.rows)) + 2
        beside = options.max_width - names - 2 >= LEAST_ROOM
        # On a narrow terminal a value stands below its name.
        names = names if beside else 2
        room = max(options.max_width - names - 2, 1)
        yield Text(self.title, style="bold", no_wrap=True, overflow="ignore")
        for name, value in self.rows:
            first, *others = [
                part
                for line in value.split("\n")
                for part in textwrap.wrap(line, room, break_long_words=False, break_on_hyphens=False) or [""]
            ]
            begin = (f"  {name:<{names}}{first}",) if beside else (f"  {name}", f"    {first}")
            lines = (*begin, *(" " * (names + 2) + line for line in others))
            yield Text("\n".join(lines), no_wrap=True, overflow="ignore")
