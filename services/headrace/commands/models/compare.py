"""`headrace models diff` compares the records of two versions, `headrace models compare` their answers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from headrace.commands.common import Bootstrap, OneJson, Version, begin, console, open_models, open_workers, say
from headrace.commands.models.show import number, time_of
from headrace.core.text import label_name, quantity

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import RenderableType

    from headrace.client.comparison import Side
    from headrace.config import Settings
    from headrace.core.agreement import Agreement, Example
    from headrace.kafka.interface import Cluster
    from headrace_schemas.records import ModelVersion

ABSENT = "-"


class Difference(msgspec.Struct, frozen=True):
    """A field that differs; ``change`` is the signed difference of two numbers."""

    what: str
    before: str
    after: str
    change: str = ""


def diff(ctx: typer.Context, a: Version, b: Version, *, bootstrap: Bootstrap = None) -> None:
    """Show what changed from version A to version B: labels, metrics, size, what they were trained on, and how."""
    settings = begin(ctx, bootstrap)
    before, after = asyncio.run(_read_both(settings, a, b))
    from headrace.commands.terminal import plain_table

    found = differences(before, after)
    table = plain_table(("", before.version, after.version, "change"), map(msgspec.structs.astuple, found))
    console().print(table if found else "They do not differ.")


async def _read_both(settings: Settings, a: str, b: str) -> tuple[ModelVersion, ModelVersion]:
    from headrace.registry.versions import find_version

    name = settings.worker.model_name
    async with open_models(settings) as models:
        return find_version(models.log, name, a), find_version(models.log, name, b)


def differences(a: ModelVersion, b: ModelVersion) -> list[Difference]:
    """The fields that differ, without those that neither version has."""
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


LONGEST_TEXT = 80


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """The two sides, and how far they agree."""

    a: Side
    b: Side
    agreement: Agreement


def compare(
    ctx: typer.Context,
    a: Version,
    b: Version,
    *,
    results_a: Annotated[
        str | None, typer.Option(metavar="TOPIC", help="Where A's answers are; by default topics.results.")
    ] = None,
    results_b: Annotated[
        str | None,
        typer.Option(metavar="TOPIC", help="Where B's are; by default the other topic of the same requests."),
    ] = None,
    last: Annotated[int, typer.Option(min=1, help="How many of the last answers to look at.")] = 100_000,
    examples: Annotated[int, typer.Option(min=0, help="How many requests to name of each pair of labels.")] = 3,
    texts: Annotated[bool, typer.Option("--texts", help="Read the texts of the examples from the requests.")] = False,
    as_json: OneJson = False,
    bootstrap: Bootstrap = None,
) -> None:
    """Compare what versions A and B answered to the same requests: how often they agree, class by class."""
    settings = begin(ctx, bootstrap, {"--results-a": ("topics.results", results_a)})
    compared = asyncio.run(_compare(settings, a, b, results_b, last=last, examples=examples, texts=texts))
    if as_json:
        say(msgspec.json.format(msgspec.json.encode(compared)).decode())
        return
    for section in page(compared):
        console().print(section)


async def _other_results(settings: Settings) -> str:
    from headrace.client.comparison import other_results

    names = settings.topics.names()
    async with open_workers(settings) as workers:
        return other_results(workers.log, names.requests, names.results)


async def _compare(
    settings: Settings, a: str, b: str, results_b: str | None, *, last: int, examples: int, texts: bool
) -> Compared:
    from headrace.client.comparison import ResultsTopicError, Side, compare_logs
    from headrace.registry.versions import find_version

    names, name = settings.topics.names(), settings.worker.model_name
    async with open_models(settings) as models:
        ours = Side(names.results, find_version(models.log, name, a).version)
        topic = results_b or await _other_results(settings)
        theirs = Side(topic, find_version(models.log, name, b).version)
        if ours.results == theirs.results:
            raise ResultsTopicError(f"Both sides are {topic}: answers of two groups stand in two topics.")
        agreement = await compare_logs(
            models.cluster,
            ours,
            theirs,
            last=last,
            examples=examples,
        )
        if texts:
            shown = await _with_texts(models.cluster, settings, agreement.examples)
            agreement = msgspec.structs.replace(agreement, examples=shown)
        return Compared(a=ours, b=theirs, agreement=agreement)


async def _with_texts(cluster: Cluster, settings: Settings, examples: Sequence[Example]) -> tuple[Example, ...]:
    from headrace.kafka.interface import connected
    from headrace.kafka.range_reader import read_texts
    from headrace_schemas.paths import compile_shape

    async with connected(cluster.consumer()) as consumer:
        places = [(example.partition, example.offset) for example in examples]
        found = await read_texts(consumer, settings.topics.names().requests, places, compile_shape(settings.requests))
    return tuple(
        msgspec.structs.replace(example, text=found.get((example.partition, example.offset))) for example in examples
    )


def page(compared: Compared) -> Iterator[RenderableType]:
    """The comparison in words and tables."""
    agreement = compared.agreement
    yield f"A: {compared.a.version} in {compared.a.results}"
    yield f"B: {compared.b.version} in {compared.b.results}"
    if agreement.requests:
        fraction = agreement.agreeing / agreement.requests
        both = quantity(agreement.requests, "request was", "requests were")
        yield f"{both} answered by both, {fraction:.2%} of them alike."
        yield _classes(agreement)
    else:
        yield "No request was answered by both."
    if agreement.examples:
        yield _examples(agreement.examples)
    yield from _left_out(agreement)


def _classes(agreement: Agreement) -> RenderableType:
    from headrace.commands.terminal import plain_table

    rows = (
        (
            one.label,
            f"{one.requests:,}",
            f"{one.agreeing:,}",
            f"{one.agreeing / one.requests:.1%}",
            ", ".join(f"{label} {count:,}" for label, count in one.otherwise.items()),
        )
        for one in agreement.classes
    )
    return plain_table(("A says", "requests", "B agrees", "", "B says otherwise"), rows)


def _examples(examples: Sequence[Example]) -> RenderableType:
    from headrace.commands.terminal import plain_table

    texts = [" ".join((one.text or "").split()) for one in examples]
    shown = [text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT] + "..." for text in texts]
    rows = ((f"{one.partition}@{one.offset}", one.a, one.b, text) for one, text in zip(examples, shown, strict=True))
    return plain_table(("request", "A says", "B says", "text"), rows)


def _left_out(agreement: Agreement) -> Iterator[str]:
    if agreement.other_versions:
        seen = (
            "; ".join(f"{version} {count:,}" for version, count in sorted(side.items()))
            for side in (agreement.versions_a, agreement.versions_b)
        )
        yield f"{agreement.other_versions:,} were answered by other versions (A: {next(seen)}. B: {next(seen)})."
    if agreement.not_ok:
        yield f"{agreement.not_ok:,} had expired or failed on one side."
    if agreement.only_a or agreement.only_b:
        yield f"{agreement.only_a:,} have an answer only in A's topic, {agreement.only_b:,} only in B's."
