"""What the demo runs on: a broker, topics, the settings of its children, and these children, which never outlive it."""

from __future__ import annotations

import asyncio
import enum
import shutil
import sys
from asyncio.subprocess import DEVNULL, Process
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from random import Random
from typing import Any, Never

import msgspec

from headrace.config import AdminSettings, LogSettings, Settings, TopicsSettings
from headrace.config.loading import PREFIX, shown
from headrace.core.clock import Clock
from headrace.core.errors import UserError, one_of_all
from headrace.core.fields import Secret
from headrace.demo.texts import Texts, write_rows
from headrace.kafka.aio import AioKafkaCluster
from headrace.kafka.brokers import apache_broker, embedded_broker, embedded_settings
from headrace.kafka.settings import KafkaSettings
from headrace.kafka.topics import WantedTopic, carry_out, look
from headrace.learning.data.files import Rows
from headrace.process.child_process import ending_with_parent
from headrace.worker.settings import WorkerSettings
from headrace_schemas.topics import topics

DRAIN_S = 3.0
EMBEDDED_FETCH_WAIT_MS = 20


class Broker(enum.Enum):
    """What to start where no cluster is given."""

    EMBEDDED = "embedded broker, all in memory"
    APACHE = "Apache Kafka, started for this"


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to show: a stream of ``rate`` texts a second, ``seconds`` long; the learning path moves on after so many.

    ``kafka`` None starts ``broker``. What stays is kept in ``keep_in``.
    """

    texts: Texts
    kafka: KafkaSettings | None
    broker: Broker
    rate: float
    seconds: float
    environ: Mapping[str, str]
    keep_in: Path


@asynccontextmanager
async def kafka_for(given: KafkaSettings | None, broker: Broker) -> AsyncIterator[KafkaSettings]:
    """How to reach the cluster: as ``given``, or a ``broker`` that runs while the block does.

    Raises BrokerStartError.
    """
    if given is not None:
        yield given
    elif broker is Broker.APACHE:
        async with apache_broker() as brokers:
            yield KafkaSettings(bootstrap=brokers.bootstrap)
    else:
        async with embedded_broker() as bootstrap:
            # While a fetch waits it looks for new records now and then, the more rarely the longer the wait is.
            yield msgspec.structs.replace(embedded_settings(bootstrap), fetch_max_wait_ms=EMBEDDED_FETCH_WAIT_MS)


def prefix_for(random: Random) -> str:
    """A topic prefix that no other run has, so that a demo never mixes with anybody's topics."""
    return f"demo-{random.randrange(16**6):06x}-"


def demo_settings(kafka: KafkaSettings, prefix: str, model: str) -> Settings:
    """Everything that a worker of the demo is told. Nothing of the user's settings but ``kafka`` goes in."""
    return Settings(
        kafka=kafka,
        topics=TopicsSettings(prefix=prefix),
        worker=WorkerSettings(
            group=f"{prefix}headrace",
            model=model,
            revoke_timeout=kafka.rebalance_timeout_ms / 2000,
            drain_timeout=DRAIN_S,
        ),
        admin=AdminSettings(port=0),
        log=LogSettings(format="json"),
    )


def as_options(settings: Settings) -> list[str]:
    """:func:`as_sets` as options of ``headrace``."""
    return [part for assignment in as_sets(settings) for part in ("--set", assignment)]


def as_sets(settings: Settings) -> list[str]:
    """``section.field=value`` for every value that is not the default. Secrets are left out: a list of processes
    shows arguments to everybody.
    """
    default = Settings()
    return [
        f"{section}.{field}={shown(value)}"
        for section in settings.__struct_fields__
        for field in getattr(settings, section).__struct_fields__
        if (value := getattr(getattr(settings, section), field)) != getattr(getattr(default, section), field)
        and not isinstance(value, Secret)
    ]


def child_environment(environ: Mapping[str, str], kafka: KafkaSettings, temporary: Path) -> dict[str, str]:
    """``environ`` for a child that gets its settings by :func:`as_sets`: none of the user's, but the secrets.

    What a child that is ended leaves behind, such as the logs of its ranks, is in the folder ``temporary``.
    """
    secrets = {
        f"{PREFIX}KAFKA__{field.upper()}": value.reveal()
        for field, value in msgspec.structs.asdict(kafka).items()
        if isinstance(value, Secret)
    }
    return (
        {name: value for name, value in environ.items() if not name.startswith(PREFIX)}
        | secrets
        | {"TMPDIR": str(temporary)}
    )


async def create_topics(settings: Settings) -> None:
    """Create the topics as `headrace topics apply` does. Raises a KafkaError, also when no broker answers."""
    prefix = settings.topics.prefix
    wanted = [WantedTopic(prefix + topic.name, topic) for topic in topics("", settings.topics.partitions)]
    admin = AioKafkaCluster(settings.kafka).admin()
    await admin.start()
    try:
        await carry_out(admin, await look(admin, wanted), grow=False)
    finally:
        await admin.stop()


LOG_TAIL_LINES = 15


class ChildEndedError(UserError):
    """A command that the demo needs ended by itself, or did not get ready in time."""


@asynccontextmanager
async def child(
    arguments: Sequence[str], *, environ: Mapping[str, str], folder: Path, log: Path | None, grace_s: float
) -> AsyncIterator[Process]:
    """Run ``headrace *arguments`` in ``folder`` while the block runs, then end it: SIGTERM, and SIGKILL ``grace_s``
    seconds later.

    Its output goes to ``log``, or for None where ours goes. A session of its own keeps the terminal's Ctrl-C for us
    to act on, and on Linux it gets SIGTERM when we are killed.
    """
    with nullcontext() if log is None else log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *ending_with_parent((sys.executable, "-m", "headrace", *arguments)),
            env=environ,
            cwd=folder,
            stdin=DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        await _end(process, grace_s)


async def run_to_its_end(
    name: str, arguments: Sequence[str], *, environ: Mapping[str, str], folder: Path, log: Path | None, grace_s: float
) -> None:
    """Run ``headrace *arguments`` as :func:`child` does, to its end. Raises ChildEndedError unless it ends well."""
    async with child(arguments, environ=environ, folder=folder, log=log, grace_s=grace_s) as process:
        if code := await process.wait():
            why = "what it printed says why." if log is None else f"the end of what it printed:\n{log_tail(log)}"
            raise ChildEndedError(f"{name} ended with exit code {code}; {why}")


class Service(msgspec.Struct, frozen=True):
    """A running command that ends only when it is told to, and its log. ``name`` is for messages."""

    name: str
    process: Process
    log: Path

    async def watch(self) -> Never:
        """Wait until it ends, which it should not. Raises ChildEndedError with the end of its log."""
        code = await self.process.wait()
        raise ChildEndedError(f"{self.name} ended by itself (exit code {code}). The end of its log:\n{self.tail}")

    @property
    def tail(self) -> str:
        return log_tail(self.log)


@asynccontextmanager
async def beside(*others: Coroutine[Any, Any, object]) -> AsyncIterator[None]:
    """Run ``others`` beside the block, and end them with it. What they raise ends the block and is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in others]
            yield
            for task in tasks:
                task.cancel()
    except ExceptionGroup as raised:
        raise one_of_all(raised) from raised


def log_tail(log: Path) -> str:
    """The last lines of ``log``."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])


async def _end(process: Process, grace_s: float) -> None:
    if process.returncode is None:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), grace_s)
        except TimeoutError:
            process.kill()
            await process.wait()


START_LIMIT_S = 120.0
POLL_S = 0.05


class _Event(msgspec.Struct, frozen=True):
    event: str
    partitions: tuple[int, ...] = ()
    partition: int = -1


class Workers(Service, frozen=True):
    """The running parent of the members, and the log of them all."""

    async def ready(self, members: int, partitions: int, clock: Clock) -> None:
        """Wait until all ``members`` answer. Raises ChildEndedError when that takes longer than START_LIMIT_S."""
        until = clock.monotonic() + START_LIMIT_S
        while not all_answer(self.log.read_bytes().splitlines(), members, partitions):
            if clock.monotonic() > until:
                raise ChildEndedError(
                    f"The workers were not ready in {START_LIMIT_S:g} s. The end of their log:\n{self.tail}"
                )
            await clock.sleep(POLL_S)


@asynccontextmanager
async def workers(
    settings: Settings, members: int, *, environ: Mapping[str, str], folder: Path
) -> AsyncIterator[Workers]:
    """Run ``members`` workers with ``settings`` (log.format has to be json) while the block runs."""
    log = folder / "workers.log"
    # The parent's own patience with its members is three times this limit.
    grace_s = 4 * settings.worker.drain_timeout
    command = [*as_options(settings), "worker", "--processes", str(members)]
    async with child(command, environ=environ, folder=folder, log=log, grace_s=grace_s) as process:
        yield Workers("`headrace worker`", process, log)


def all_answer(lines: Iterable[bytes], members: int, partitions: int) -> bool:
    """Whether, by their log, ``members`` workers share the ``partitions`` among them and have resumed each.

    At a rebalance every member is told its partitions anew, so the last assignments are those that hold.
    """
    decoder = msgspec.json.Decoder(_Event)
    held: deque[frozenset[int]] = deque(maxlen=members)
    resumed: set[int] = set()
    for line in lines:
        try:
            event = decoder.decode(line)
        except msgspec.DecodeError:
            continue  # the lines of a traceback, and one that is being written
        if event.event == "partitions.assigned":
            held.append(frozenset(event.partitions))
            resumed -= held[-1]
        elif event.event == "partition.resumed":
            resumed.add(event.partition)
    shared_out = len(held) == members and all(held) and sum(map(len, held)) == partitions
    return shared_out and resumed == frozenset[int]().union(*held) == set(range(partitions))


GRACE_S = 2.0


async def train_model(rows: Rows, model: Path, *, environ: Mapping[str, str]) -> None:
    """Run `headrace train` on ``rows``, its output beside ours; it writes ``model``. Raises ChildEndedError."""
    folder = model.parent
    data = folder / "texts.jsonl"
    write_rows(rows, data)
    # By names in its folder: what it prints shall not point at files that are gone soon.
    # A first look, not the best model: the demo is to be seen whole before somebody has lost patience.
    command = ["train", data.name, "--out", model.name, "--quick", "--max-tokens", "128"]
    await run_to_its_end("`headrace train`", command, environ=environ, folder=folder, log=None, grace_s=GRACE_S)


def keep(model: Path, at: Path) -> None:
    """Copy ``model`` to ``at``, whole or not at all: a worker may be loading the one of an earlier demo there."""
    at.parent.mkdir(parents=True, exist_ok=True)
    half = at.with_name(f"{at.name}.{model.parent.name}")
    shutil.copyfile(model, half)
    half.replace(at)
