"""What the harness starts: a broker of its own, topics of a run, and the contender.

Where the runs of a command happen: a cluster, the names that topics get there, and what is seen beside it.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import secrets
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal, TypeVar

import msgspec
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from msgspec import Struct

from headrace_load.contender import Contender, Program, WorkerProgram
from headrace_load.processes import Child, child, headrace, running
from headrace_load.system import TOPICS, Running, Start, System, kafka_settings, prefixed, settings_of
from headrace_load.waiting import slowness

START_S = 120.0
POLL_S = 0.1
BrokerKind = Literal["apache", "embedded"]
EMBEDDED = {"idempotent": "false", "static_members": "false"}
"""What the embedded broker can't do."""

_ADDRESS = re.compile(r"^[\w.-]+:\d+(?:,[\w.-]+:\d+)*$", re.MULTILINE)
_T = TypeVar("_T")


class Broker(Struct, frozen=True, kw_only=True):
    """A broker that was started here: its address, process tree, and the Kafka settings that it needs."""

    bootstrap: str
    pids: tuple[int, ...]
    kafka: dict[str, str]


@asynccontextmanager
async def broker(kind: BrokerKind, folder: Path) -> AsyncIterator[Broker]:
    """A broker of one node on this machine; its log is in ``folder``. Raises ProgramError when it does not start."""
    async with running("broker", "--kind", kind, log=folder / "broker.log") as process:
        address = await _until(process, lambda: _ADDRESS.search(process.log.read_text(errors="replace")))
        yield Broker(bootstrap=address[0], pids=(process.pid,), kafka=dict(EMBEDDED) if kind == "embedded" else {})


async def make_topics(system: System, partitions: int) -> None:
    """Create the topics of ``system``. Raises ProgramError with what `headrace topics apply` said."""
    await headrace("topics", "apply", "--partitions", str(partitions), environment=system.environment())


async def remove_topics(system: System) -> None:
    """Delete the topics of ``system``, which have to be the harness's own. Raises a KafkaError of aiokafka."""
    admin = AIOKafkaAdminClient(**system.client_options())
    await admin.start()
    try:
        await admin.delete_topics([getattr(system, name) for name in TOPICS])
    finally:
        await admin.close()


def starter(contender: Contender, system: System, *, group: str, folder: Path, wait: bool) -> Start:
    """How ``contender`` is started on ``system`` as the consumer group ``group``; its logs are in ``folder``.

    With ``wait`` the block begins when it answers: headrace's workers say so by /readyz, another program by being a
    settled member of its group (one that joins none is waited for :data:`START_S`). Entering raises ProgramError.
    """
    # Each start has a log of its own: ports are read from it.
    numbers = itertools.count(1)

    @asynccontextmanager
    async def start() -> AsyncIterator[Running]:
        log = folder / f"contender-{next(numbers)}.log"
        if contender.worker is not None:
            async with _worker(contender.worker, system, group, log, wait=wait) as started:
                yield started
        elif contender.program is not None:
            async with _program(contender.program, system, group, log, wait=wait) as started:
                yield started

    return start


@asynccontextmanager
async def _worker(
    worker: WorkerProgram, system: System, group: str, log: Path, *, wait: bool
) -> AsyncIterator[Running]:
    sets = [part for key, value in worker.settings.items() for part in ("--set", f"{key}={value}")]
    options = ("--model", worker.model, "--backend", worker.backend, "--processes", str(worker.processes))
    environment = {**system.environment(), "HEADRACE_ADMIN__PORT": "0", "HEADRACE_LOG__FORMAT": "json"}
    async with running(*sets, "worker", *options, "--group", group, log=log, environment=environment) as process:
        admins = await _until(process, lambda: found if len(found := _admins(log)) >= worker.processes else None)
        if wait:
            await _until(process, lambda: all(_ready(admin) for admin in admins) or None)
        yield Running(pids=(process.pid,), metrics=tuple(f"{admin}/metrics" for admin in admins))


@asynccontextmanager
async def _program(program: Program, system: System, group: str, log: Path, *, wait: bool) -> AsyncIterator[Running]:
    given = {
        "BOOTSTRAP": system.bootstrap,
        "REQUESTS": system.requests,
        "RESULTS": system.results,
        "GROUP": group,
    }
    environment = {**system.environment(), **given, **program.environment}
    async with child(program.command, log=log, environment=environment) as process:
        if wait:
            await _settled(process, system, group)
        yield Running(pids=(process.pid,))


def _admins(log: Path) -> list[str]:
    """The admin ports that the workers named in their log, as URLs; the last ones where members were started again."""
    found = []
    for line in log.read_bytes().splitlines():
        try:
            event = msgspec.json.decode(line, type=dict[str, object])
        except msgspec.DecodeError:
            continue  # a line that was printed past the log, or is not complete yet
        if event.get("event") == "admin.listening":
            found.append(f"http://{event['host']}:{event['port']}")
    return found


def _ready(admin: str) -> bool:
    try:
        with urllib.request.urlopen(f"{admin}/readyz", timeout=5):  # noqa: S310 - our own worker's port
            return True
    except (urllib.error.URLError, OSError):
        return False


async def _settled(process: Child, system: System, group: str) -> None:
    admin = AIOKafkaAdminClient(**system.client_options())
    await admin.start()
    deadline = time.monotonic() + START_S
    try:
        while time.monotonic() < deadline:
            process.check()
            if await _stable(admin, group):
                return
            await asyncio.sleep(POLL_S)
    finally:
        await admin.close()


async def _stable(admin: AIOKafkaAdminClient, group: str) -> bool:
    try:
        replies = await admin.describe_consumer_groups([group])
    except KafkaError:
        return False  # no coordinator knows the group yet
    return any(state == "Stable" and members for reply in replies for _, _, state, _, _, members, *_ in reply.groups)


async def _until(process: Child, look: Callable[[], _T | None]) -> _T:
    """What ``look`` finds. Raises ProgramError when ``process`` ends first, or finds nothing in :data:`START_S`."""
    deadline = time.monotonic() + START_S * slowness()
    while (found := await asyncio.to_thread(look)) is None:
        process.check()
        if time.monotonic() > deadline:
            raise process.error("It was not ready in time.")
        await asyncio.sleep(POLL_S)
    return found


BOOTSTRAP = "127.0.0.1:9092"


class PlaceError(ValueError):
    """The options that say where to run don't go together; the message says which and why."""


class Asked(Struct, frozen=True, kw_only=True):
    """The options that say where to run, as they were given. ``sets`` are kafka.name=value and topics.name=value."""

    bootstrap: str | None = None
    broker: BrokerKind | None = None
    prefix: str | None = None
    sets: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    worker_pids: tuple[int, ...] = ()
    broker_pids: tuple[int, ...] = ()
    partitions: int = 4


class Place(Struct, frozen=True, kw_only=True):
    """A cluster. ``transient`` is one that goes with the command, and all its topics with it.

    ``existing`` is the system that others run there. A contender gets topics of its own, each run behind ``prefix``.
    """

    existing: System
    prefix: str
    partitions: int
    transient: bool

    def own(self, run: str) -> System:
        """The system of the run of this name (unique, of letters, digits, - and _). Its topics are not made yet."""
        found = self.existing
        return prefixed(found.bootstrap, f"{self.prefix}{run}.", kafka=found.kafka, broker_pids=found.broker_pids)


@asynccontextmanager
async def place(asked: Asked, environ: Mapping[str, str], folder: Path) -> AsyncIterator[Place]:
    """Find the cluster, or start one whose log is in ``folder``. ``environ`` may hold HEADRACE_KAFKA__ and _TOPICS__.

    Raises PlaceError, KafkaSettingsError, and ProgramError when a broker does not start.
    """
    if asked.broker is not None and asked.bootstrap is not None:
        raise PlaceError("--broker starts a broker and --bootstrap names one that runs: give one of them")
    kafka, topics = _settings(asked, environ)
    if asked.broker is None:
        bootstrap = asked.bootstrap or kafka.get("bootstrap") or BOOTSTRAP
        yield _place(asked, bootstrap, kafka, topics, asked.broker_pids)
        return
    async with broker(asked.broker, folder) as started:
        yield _place(asked, started.bootstrap, {**kafka, **started.kafka}, topics, started.pids)


def _settings(asked: Asked, environ: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    for assignment in asked.sets:
        key, equals, _ = assignment.partition("=")
        if not equals or key.partition(".")[0] not in ("kafka", "topics"):
            raise PlaceError(
                f"--set {key}: write it as kafka.name=value or topics.name=value. "
                "Settings of a worker are in its contender's file."
            )
    kafka, topics = (settings_of(section, environ, asked.sets) for section in ("kafka", "topics"))
    kafka_settings(kafka)
    if unknown := sorted(topics.keys() - {*TOPICS, "prefix", "partitions"}):
        raise PlaceError(f"topics.{unknown[0]}: no such setting. Known: prefix, {', '.join(TOPICS)}.")
    return kafka, topics


def _place(
    asked: Asked, bootstrap: str, kafka: dict[str, str], topics: dict[str, str], broker_pids: tuple[int, ...]
) -> Place:
    given = asked.prefix if asked.prefix is not None else topics.get("prefix")
    system = prefixed(
        bootstrap,
        given or "",
        kafka={name: value for name, value in kafka.items() if name != "bootstrap"},
        metrics=asked.metrics,
        worker_pids=asked.worker_pids,
        broker_pids=broker_pids,
    )
    # Behind a generated prefix nobody else has topics, so what is made there may be deleted.
    generated = f"headrace-load-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}-"
    return Place(
        existing=msgspec.structs.replace(system, **{name: topics[name] for name in TOPICS if name in topics}),
        prefix=generated if given is None else f"{given}{generated}",
        partitions=asked.partitions,
        transient=asked.broker is not None,
    )
