"""Common parts of the commands: settings and their options, output, the cluster and the registry's topics."""

from __future__ import annotations

import enum
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple, TextIO

import msgspec
import typer

from headrace.core.errors import UserError
from headrace.core.text import printable

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from headrace.client import Client
    from headrace.commands.terminal import Terminal
    from headrace.config import Loaded, Settings
    from headrace.config.loading import Options
    from headrace.kafka.interface import Appended, Cluster, Outgoing, Producer
    from headrace.model.places import Location
    from headrace.process.tracing import Tracer
    from headrace.registry.compacted_topics import ModelsLog, ModelsWriter, WorkersLog, WorkersWriter

PIPE_WIDTH = 250
NAME = re.compile(r"[A-Za-z0-9_-]{1,249}")
"""An alias or a version."""
STARTING = "starting"
"""Why a process that is starting is not ready."""
NO_LABEL = "(no label)"
"""Shown for an answer whose score is below its version's threshold."""

MOST_BY = 200

By = Annotated[
    str | None,
    typer.Option("--by", metavar="NAME", help="Who does it, for the record; by default the user of this machine."),
]


def who(given: str | None) -> str:
    """The name that a record keeps of who did it: the one that was given, or that of the process's user."""
    import os
    import pwd

    if given is not None:
        if not given.strip() or len(given) > MOST_BY:
            raise UserError(f"--by is a name of 1 to {MOST_BY} characters.")
        return given.strip()
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        # As in a container whose user has no name.
        return f"uid {os.getuid()}"


Bootstrap = Annotated[
    str | None, typer.Option("--bootstrap", metavar="HOST:PORT", help="The Kafka cluster; short for kafka.bootstrap.")
]

Delimiter = Annotated[
    str | None,
    typer.Option("--delimiter", metavar="CHAR", help="The character between fields of CSV; by default detected."),
]
Encoding = Annotated[
    str | None,
    typer.Option("--encoding", metavar="NAME", help="The file's encoding, such as cp1252; by default detected."),
]


TextColumn = Annotated[str, typer.Option("--text-column", help="The column of the texts.")]
LabelColumn = Annotated[str, typer.Option("--label-column", help="The column of the labels.")]
LinesOfJson = Annotated[bool, typer.Option("--json", help="Print a JSON object a line.")]
OneJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
AsCsv = Annotated[bool, typer.Option("--csv", help="Print CSV, whose first line names the columns.")]
Yes = Annotated[bool, typer.Option("--yes", help="Delete without asking.")]
Model = Annotated[str, typer.Argument(help="An artifact (path or URI), an alias or a version.")]
Version = Annotated[str, typer.Argument(help="A version's name, the beginning of it or of its hash, or an alias.")]


class BackendName(enum.StrEnum):
    """The backends that can answer; all give the same labels."""

    CPU = "cpu"
    CUDA = "cuda"
    REFERENCE = "reference"


BackendOption = Annotated[
    BackendName, typer.Option(help="The backend that computes; cuda needs a GPU, reference is slow.")
]


class LogLevel(enum.StrEnum):
    """How much is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Invocation(msgspec.Struct, frozen=True):
    """The global options, and the environment as it was when the command line started."""

    environ: Mapping[str, str]
    file: Path | None = None
    sets: tuple[str, ...] = ()
    bootstrap: str | None = None
    log_level: str | None = None


def settings_from(ctx: typer.Context, options: Options | None = None) -> Loaded:
    """Load the settings that ``ctx`` was started with; ``options`` are a command's own, as load_settings takes them.

    ./headrace.toml is read when it is there and no --config was given. Raises SettingsError.
    """
    from headrace.config import file_of, load_settings

    given = ctx.find_object(Invocation)
    if given is None:
        raise RuntimeError("the command line was not started by headrace.cli, so there is no Invocation")
    own = dict(options or {})
    # A command's own --bootstrap stands closer to the command than the global one.
    if own.get("--bootstrap", ("", None))[1] is None:
        own["--bootstrap"] = ("kafka.bootstrap", given.bootstrap)
    own["--log-level"] = ("log.level", given.log_level)
    loaded = load_settings(file_of(given.file), given.environ, given.sets, own)
    if loaded.ignored:
        _warn(loaded)
    return loaded


def _warn(loaded: Loaded) -> None:
    """Log which variables set nothing, in the format of the settings."""
    import sys

    from headrace.process.logs import configure, event

    configure(sys.stderr, level=loaded.settings.log.level, form=loaded.settings.log.format)
    for variable, nearest in loaded.ignored:
        why = "no such setting" if nearest is None else f"no such setting; did you mean {nearest}?"
        event("setting.ignored", level="warning", variable=variable, why=why)


def begin(ctx: typer.Context, bootstrap: str | None = None, options: Options | None = None) -> Settings:
    """Load the settings, and send the logs to stderr as they say. For commands that are clients of Kafka.

    ``bootstrap`` is the command's own option, ``options`` are its others. Raises SettingsError.
    """
    import logging
    import sys

    from headrace.process.logs import configure

    settings = settings_from(ctx, {"--bootstrap": ("kafka.bootstrap", bootstrap), **(options or {})}).settings
    configure(sys.stderr, level=settings.log.level, form=settings.log.format)
    # The user sees a failure as one KafkaError; aiokafka would log it a second time.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    return settings


def console() -> Terminal:
    """The console for tables: a terminal has its own width, a pipe is so wide that no cell is cut. Nothing is
    markup.
    """
    import sys

    from headrace.commands.terminal import Terminal

    return Terminal() if sys.stdout.isatty() else Terminal(width=PIPE_WIDTH)


def say(text: str, *, flush: bool = False) -> None:
    """Print ``text``, which may come from a record, with control characters escaped."""
    print(printable(text, lines=True), flush=flush)  # noqa: T201 - the one place that prints


def tell(text: str) -> None:
    """Print a sentence for people: like :func:`say`, but broken between words if the terminal is narrower."""
    import sys

    print(wrapped(printable(text, lines=True), width_of(sys.stdout)))  # noqa: T201


@asynccontextmanager
async def admin_port(
    settings: Settings, registry: CollectorRegistry, unready: Callable[[], str | None], slot: int = 0
) -> AsyncIterator[int]:
    """Serve the admin port of the process in ``slot``, counted from 0; ``unready`` says why it does no work now.

    Beside what is in ``registry`` it tells what the process takes (CPU seconds, memory, open files), and when
    certificates end, how old keys are and how much room disks have.
    """
    import os

    from prometheus_client import ProcessCollector

    from headrace.process.admin import admin_server
    from headrace.sight.surroundings import surroundings

    ProcessCollector(registry=registry)
    admin = settings.admin
    served = admin_server(
        admin.host,
        admin.port_of(slot),
        neighbours=admin.neighbours,
        health=lambda: None,
        ready=unready,
        registry=registry,
    )
    with surroundings(settings, os.environ, registry):
        async with served as port:
            yield port


@asynccontextmanager
async def tracing(settings: Settings, service: str, process: str) -> AsyncIterator[Tracer]:
    """The tracer of a ``service``, of which ``process`` is one; at the end its last spans are sent."""
    from headrace.process.tracing import NO_TRACER

    own = settings.tracing
    if own.address is None:
        yield NO_TRACER
        return
    from headrace.process.otlp import open_tracer

    tracer = open_tracer(
        endpoint=own.address,
        headers=own.sent_headers(),
        ca_file=own.ca_file,
        service=f"headrace-{service}",
        process=process,
        ratio=own.ratio,
        follows=own.follow,
        most_links=own.links,
    )
    try:
        yield tracer
    finally:
        await tracer.close()


def place_for(given: str, *, force: bool = False) -> Location:
    """Check the path or URI of an output file before the work for it begins.

    Raises OutputError if it can't be written, or exists and ``force`` is not given.
    """
    from headrace.files.output import OutputError
    from headrace.model import store
    from headrace.model.errors import StoreError
    from headrace.model.places import as_told

    if not given or given.endswith("/"):
        raise OutputError(f"{given!r} names a folder: name a file in it.")
    try:
        where = as_told(given)
    except StoreError as error:
        raise OutputError(str(error)) from None
    store.check_place(where, force=force)
    return where


def remark(text: str) -> None:
    """Print ``text`` to stderr, as :func:`tell` prints to stdout."""
    import sys

    print(wrapped(printable(text, lines=True), width_of(sys.stderr)), file=sys.stderr)  # noqa: T201


def width_of(stream: TextIO) -> int | None:
    """The columns of the terminal of ``stream``; None for a file, a pipe, or a terminal that does not tell."""
    import os

    if not stream.isatty():
        return None
    try:
        return os.get_terminal_size(stream.fileno()).columns or None
    except (OSError, ValueError):
        return None


# A command in backticks is one word, so that it is copied whole.
_WORD = re.compile(r"[^\s`]*`[^`\n]+`\S*|\S+")


def wrapped(text: str, width: int | None) -> str:
    """``text`` with each of its lines broken between words where it is longer than ``width`` columns.

    The new lines are indented like the first one. A word that is longer than ``width`` stays whole.
    """
    if width is None:
        return text
    return "\n".join(part for line in text.split("\n") for part in _lines_of(line, width))


def _lines_of(line: str, width: int) -> Iterator[str]:
    if _columns(line) <= width:
        yield line
        return
    indent = line[: len(line) - len(line.lstrip(" "))]
    so_far = ""
    for word in _WORD.findall(line):
        longer = f"{so_far} {word}" if so_far else f"{indent}{word}"
        if so_far and _columns(longer) > width:
            yield so_far
            longer = f"{indent}{word}"
        so_far = longer
    yield so_far


def _columns(text: str) -> int:
    """The columns that ``text`` takes. Han and other wide characters take two each."""
    if text.isascii():
        return len(text)
    import unicodedata

    return sum(2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in text)


class NotConfirmedError(UserError):
    """The user did not confirm something that can't be undone."""


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something that can't be undone, unless ``yes``. Raises NotConfirmedError.

    Without a terminal nobody can be asked, so it raises.
    """
    import sys

    if yes:
        return
    if not sys.stdin.isatty():
        raise NotConfirmedError("Nothing was deleted: there is no terminal to ask on. --yes deletes without asking.")
    if not typer.confirm(printable(question)):
        raise NotConfirmedError("Nothing was deleted.")


def cluster_of(settings: Settings) -> Cluster:
    """The cluster of ``settings``. Nothing is connected yet."""
    from headrace.kafka.aio import AioKafkaCluster

    return AioKafkaCluster(settings.kafka)


def client_of(settings: Settings) -> Client:
    """A client of the topics of ``settings``, to be used by ``async with``."""
    from headrace.client import Client

    names = settings.topics.names()
    return Client(
        cluster_of(settings),
        requests=names.requests,
        results=names.results,
        reviews=names.reviews,
        shape=settings.requests,
    )


class Models(NamedTuple):
    """The models topic as it was when it was opened, a writer to it, and its cluster."""

    log: ModelsLog
    writer: ModelsWriter
    cluster: Cluster


class StartedByUse:
    """A producer that connects when it sends the first record, so that reading needs no right to write."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._started = False

    async def send_batch(self, topic: str, partition: int, records: Sequence[Outgoing]) -> Appended:
        if not self._started:
            await self._producer.start()
            self._started = True
        return await self._producer.send_batch(topic, partition, records)


@asynccontextmanager
async def open_models(settings: Settings) -> AsyncIterator[Models]:
    """Read the topic to its end, and close it afterwards. Raises a KafkaError."""
    from headrace.kafka.interface import connected
    from headrace.registry.compacted_topics import ModelsLog, ModelsWriter

    topic = settings.topics.names().models
    cluster = cluster_of(settings)
    producer = cluster.producer()
    try:
        async with connected(ModelsLog(cluster, topic)) as log:
            yield Models(log, ModelsWriter(StartedByUse(producer), topic), cluster)
    finally:
        await producer.stop()


class Workers(NamedTuple):
    """The workers topic as it was when it was opened, and a writer to it."""

    log: WorkersLog
    writer: WorkersWriter


@asynccontextmanager
async def open_workers(settings: Settings) -> AsyncIterator[Workers]:
    """Read the workers topic to its end, and the models topic beside it; close both afterwards. Raises a KafkaError."""
    from headrace.kafka.interface import connected
    from headrace.registry.compacted_topics import WorkersLog, WorkersWriter

    topic = settings.topics.names().workers
    async with open_models(settings) as models:
        producer = models.cluster.producer()
        try:
            async with connected(WorkersLog(models.cluster, topic, models.log)) as log:
                yield Workers(log, WorkersWriter(StartedByUse(producer), topic))
        finally:
            await producer.stop()


NEW_OBJECTS = 10_000
"""So many objects are made before Python looks for garbage. At its 700 a busy gateway looks twenty times a second, for
4 to 5 % of its CPU, and finds next to nothing."""


def freeze() -> None:
    """What is alive now stays alive: later collections need not walk through it. They are rarer from now on."""
    import gc

    gc.collect()
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS, *gc.get_threshold()[1:])
