"""`headrace classify` publishes one text and prints its label; `headrace tail` shows the answers as they come."""

from __future__ import annotations

import asyncio
import datetime as dt
import re
import sys
from collections import Counter, deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from headrace.commands.common import NO_LABEL, AsCsv, Bootstrap, begin, client_of, cluster_of, console, remark, say
from headrace.commands.terminal import Form, form_of, row_writer
from headrace.core.clock import Clock, SystemClock
from headrace.core.errors import UserError
from headrace.core.fields import METAVAR, parse_start
from headrace.core.text import label_name, printable
from headrace.process.logs import PATIENCE_S
from headrace_schemas.records import Review

if TYPE_CHECKING:
    from headrace.config import Settings
    from headrace_schemas import ClassifyResult

if TYPE_CHECKING:
    from rich.console import RenderableType

    from headrace.client import Answer
    from headrace.client.reviews import ReviewReader
    from headrace.config import Settings
    from headrace.kafka.interface import Consumer
    from headrace_schemas.paths import Decode


def classify(
    ctx: typer.Context,
    text: Annotated[str, typer.Argument(help="The text.")],
    *,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds to wait for the answer.")] = 30.0,
    explain: Annotated[bool, typer.Option("--explain", help="Show what each word adds to the label.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole answer as one JSON object.")] = False,
    bootstrap: Bootstrap = None,
) -> None:
    """Publish TEXT, wait for its answer and print the label. Ends with 1 unless the answer is ok.

    An answer whose score is below its version's threshold has no label. The label that it would have had is below it.
    """
    import msgspec

    from headrace_schemas import Status

    settings = begin(ctx, bootstrap)
    result = asyncio.run(_classify(settings, text, timeout, explain))
    if as_json:
        say(msgspec.json.encode(result).decode())
    elif result.status is Status.OK:
        say("\n".join(as_lines(result)))
        if explain:
            _show_explanation(text, result)
    else:
        typer.echo(printable(f"{result.status}: {result.reason or 'not answered in time'}"), err=True)
    if result.status is not Status.OK:
        raise typer.Exit(1)


def as_lines(result: ClassifyResult) -> list[str]:
    """The label of an ok answer with its score, and then the others of its ranking.

    A ranking begins with the label, or with what the label would have been.
    """
    shown = NO_LABEL if result.label is None else result.label
    first = shown if result.score is None else f"{shown}  {result.score:.3f}"
    return [first, *(f"{other.label}  {other.score:.3f}" for other in result.ranking[result.label is not None :])]


async def _classify(settings: Settings, text: str, timeout: float, explain: bool) -> ClassifyResult:  # noqa: ASYNC109 - the client's
    async with client_of(settings) as client:
        return await client.classify(text, timeout=timeout, explain=explain)


def _show_explanation(text: str, result: ClassifyResult) -> None:
    from headrace.commands.explanation import explained

    if result.explanation is None:
        raise UserError(
            "The answer has no explanation: the worker that gave it has worker.explain off, or is of a version before "
            "1.6.0 of the wire."
        )
    shown = console()
    for line in explained(text, result.explanation):
        shown.print(line)


WAITING = "waiting for answers of `headrace worker`; --from earliest shows older ones"
SHOWN = 20
REFRESH_S = 0.25
REVIEW = "review"
COLUMNS = ("partition", "offset", "status", "label", "score", "id", "version", "reason")
"""Of CSV; ``text`` comes behind them where it was asked for."""

_AGO = re.compile(r"(\d{1,9})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which answers to show; those of any label or id where none is named. ``texts``: with what they answer;
    ``reviews``: and the reviews of those without a label.
    """

    from_: str | dt.datetime = "latest"
    count: int | None = None
    labels: frozenset[str] = frozenset()
    ids: frozenset[str] = frozenset()
    texts: bool = False
    reviews: bool = False

    def takes(self, result: ClassifyResult | Review) -> bool:
        """Whether the answer, or the review of one, is one of them."""
        return (not self.labels or label_name(result.label or "") in self.labels) and (
            not self.ids or result.id in self.ids
        )


class Seen(msgspec.Struct, frozen=True):
    """An answer, and the text of its request where it was asked for and is still there."""

    answer: Answer
    text: str | None = None


Shown = Seen | Review
"""A line of the output."""


def tail(
    ctx: typer.Context,
    *,
    from_: Annotated[str, typer.Option("--from", metavar=METAVAR, help="Where to begin.")] = "latest",
    since: Annotated[
        str | None, typer.Option(metavar="AGO|TIME", help="Instead of --from: how long ago, such as 15m or 2h.")
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, help="End after so many answers.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="Only answers of this label. May be repeated.")] = None,
    id_: Annotated[list[str] | None, typer.Option("--id", help="Only the answer of this id. May be repeated.")] = None,
    texts: Annotated[bool, typer.Option("--texts", help="Show the text of each request.")] = False,
    reviews: Annotated[
        bool, typer.Option("--reviews", help="Also show the labels that people and teachers give later.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON object a line, instead of the live table.")
    ] = False,
    as_csv: AsCsv = False,
    bootstrap: Bootstrap = None,
) -> None:
    """Show the answers as they come, without repeats; holes are marked. Ends by Ctrl-C."""
    form = form_of(as_json=as_json, as_csv=as_csv)
    settings = begin(ctx, bootstrap)
    if since is not None and from_ != "latest":
        raise UserError("--from and --since both say where to begin: give one of them.")
    wanted = Wanted(
        from_=from_ if since is None else moment_of(since, dt.datetime.now(dt.UTC)),
        count=count,
        labels=frozenset(map(label_name, label or ())),
        ids=frozenset(id_ or ()),
        texts=texts,
        reviews=reviews,
    )
    parse_start(wanted.from_)  # Before anything is connected.
    if form is None and not sys.stdout.isatty():
        form = Form.JSON
    with suppress(KeyboardInterrupt):
        asyncio.run(_table(settings, wanted) if form is None else _lines(settings, wanted, form))


def moment_of(since: str, now: dt.datetime) -> str | dt.datetime:
    """What ``--since`` says: so long before ``now``, else a time as --from takes it."""
    ago = _AGO.fullmatch(since.strip())
    if ago is None:
        return since
    # Nothing on Kafka is older than its clock, which begins in 1970.
    epoch = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    span = int(ago[1]) * _SECONDS[ago[2]]
    return now - dt.timedelta(seconds=span) if span < (now - epoch).total_seconds() else epoch


def as_row(seen: Shown) -> dict[str, object]:
    """One answer for programs: its partition, the result's own fields, the hole in front of it, if any, its text.

    A review has the status ``review``, and its origin as the reason.
    """
    if isinstance(seen, Review):
        return {
            "partition": seen.partition,
            "offset": seen.offset,
            "status": REVIEW,
            "label": seen.label,
            "reason": _origin(seen),
            **{name: value for name, value in (("score", seen.score), ("id", seen.id)) if value is not None},
        }
    fields: dict[str, object] = {"partition": seen.answer.partition, **msgspec.to_builtins(seen.answer.result)}
    if seen.answer.hole is not None:
        fields["hole"] = msgspec.to_builtins(seen.answer.hole)
    if seen.text is not None:
        fields["text"] = seen.text
    return fields


def _origin(review: Review) -> str:
    return review.origin if review.by is None else f"{review.origin} {review.by}"


async def _lines(settings: Settings, wanted: Wanted, form: Form) -> None:
    write = row_writer(form, (*COLUMNS, "text") if wanted.texts else COLUMNS)
    async with aclosing(_seen(settings, wanted)) as chunks:
        async for chunk in with_a_word(chunks, SystemClock(), remark):
            for seen in chunk:
                write(as_row(seen))


async def with_a_word(
    chunks: AsyncIterator[Sequence[Shown]], clock: Clock, tell: Callable[[str], None]
) -> AsyncIterator[Sequence[Shown]]:
    """``chunks``, and a word to ``tell`` when nothing has come for some seconds; the output is for programs."""
    begun_s: float | None = clock.monotonic()
    async for chunk in chunks:
        if chunk:
            begun_s = None
        elif begun_s is not None and clock.monotonic() - begun_s >= PATIENCE_S:
            tell(WAITING)
            begun_s = None
        yield chunk


async def _table(settings: Settings, wanted: Wanted) -> None:
    from rich.live import Live

    last: deque[Shown] = deque(maxlen=SHOWN)
    totals: Counter[str] = Counter()
    shown = console()
    with Live(table(last, totals), console=shown, auto_refresh=False) as live:
        async with aclosing(_seen(settings, wanted)) as chunks:
            async for chunk in chunks:
                last.extend(chunk)
                totals.update(REVIEW if isinstance(seen, Review) else seen.answer.result.status for seen in chunk)
                live.update(table(last, totals), refresh=True)


async def _seen(settings: Settings, wanted: Wanted) -> AsyncGenerator[Sequence[Shown], None]:
    """Chunks of the answers that are wanted, for ever or until there were so many; empty ones while nothing comes."""
    left = wanted.count
    async with (
        client_of(settings) as client,
        client.reader(wanted.from_) as reader,
        _texts_of(settings, wanted) as texts,
        _reviews_of(settings, wanted) as reviews,
    ):
        while left is None or left > 0:
            answers = [answer for answer in await reader.read(timeout_s=REFRESH_S) if wanted.takes(answer.result)]
            chunk = answers if left is None else answers[:left]
            found = await texts.read(chunk)
            shown: list[Shown] = [Seen(one, found.get((one.partition, one.result.offset))) for one in chunk]
            if reviews is not None:
                shown += [review for review in await reviews.read(timeout_s=0.0) if wanted.takes(review)]
            shown = shown if left is None else shown[:left]
            left = None if left is None else left - len(shown)
            yield shown


@asynccontextmanager
async def _reviews_of(settings: Settings, wanted: Wanted) -> AsyncIterator[ReviewReader | None]:
    if not wanted.reviews:
        yield None
        return
    from headrace.client.reviews import ReviewReader

    names = settings.topics.names()
    consumer = cluster_of(settings).consumer()
    reader = ReviewReader(
        consumer, names.reviews, results=names.results, start=parse_start(wanted.from_), clock=SystemClock()
    )
    try:
        await reader.start()
        yield reader
    finally:
        await reader.stop()


class _Texts:
    """Reads the texts of answered requests, by ``decode``; without a consumer it finds none."""

    def __init__(self, consumer: Consumer | None, topic: str, decode: Decode) -> None:
        self._consumer = consumer
        self._topic = topic
        self._decode = decode

    async def read(self, answers: Sequence[Answer]) -> dict[tuple[int, int], str]:
        from headrace.kafka.range_reader import read_texts

        if self._consumer is None:
            return {}
        places = [(answer.partition, answer.result.offset) for answer in answers]
        return await read_texts(self._consumer, self._topic, places, self._decode)


@asynccontextmanager
async def _texts_of(settings: Settings, wanted: Wanted) -> AsyncIterator[_Texts]:
    from headrace.kafka.interface import connected
    from headrace_schemas.paths import compile_shape

    topic, decode = settings.topics.names().requests, compile_shape(settings.requests)
    if not wanted.texts:
        yield _Texts(None, topic, decode)
        return
    async with connected(cluster_of(settings).consumer()) as consumer:
        yield _Texts(consumer, topic, decode)


def table(last: Sequence[Shown], totals: Counter[str]) -> RenderableType:
    """The last answers, newest last, within 80 columns, and how many of each status there were.

    The versions that answered are named below once each: a column would take a third of the room.
    """
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    said = ", ".join(f"{count:,} {status}" for status, count in totals.items()) or WAITING
    versions = dict.fromkeys(seen.answer.result.version for seen in last if isinstance(seen, Seen))
    caption = "\n".join([said, *(f"version {version}" for version in versions)])
    shown = Table(box=None, pad_edge=False, expand=True)
    for name in ("request", "status"):
        shown.add_column(name, no_wrap=True)
    shown.add_column("label", max_width=24, no_wrap=True, overflow="ellipsis")
    shown.add_column("score", no_wrap=True)
    shown.add_column("id", max_width=20, no_wrap=True, overflow="ellipsis")
    # A long text takes the room that the other columns leave, and none of theirs.
    name = "text" if any(isinstance(seen, Review) or seen.text is not None for seen in last) else ""
    shown.add_column(name, ratio=1, no_wrap=True, overflow="ellipsis")
    for seen in last:
        # Text, because a label or an id may look like markup.
        shown.add_row(*map(Text, _cells(seen)))
    # Not a caption, which fills its line: what a terminal shows of Ctrl-C would begin another one.
    return Group(shown, Text(caption))


def _cells(seen: Shown) -> Iterator[str]:
    from headrace_schemas import Status

    if isinstance(seen, Review):
        score = "" if seen.score is None else f"{seen.score:.3f}"
        yield from (f"{seen.partition}@{seen.offset}", REVIEW, seen.label, score, seen.id or "", f"by {_origin(seen)}")
        return
    result, hole = seen.answer.result, seen.answer.hole
    yield f"{seen.answer.partition}@{result.offset}"
    yield result.status
    yield result.label or result.reason or (NO_LABEL if result.status is Status.OK else "")
    yield "" if result.score is None else f"{result.score:.3f}"
    yield result.id or ""
    missing = "" if hole is None else f"no answer to {hole.first} to {hole.last} "
    yield f"{missing}{' '.join((seen.text or '').split())}"
