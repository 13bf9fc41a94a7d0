"""The system under load: a running cluster or a broker that is started here, its topics, and the watched processes."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from msgspec import Struct

from headrace.client import Client, KafkaSettings, client_options, connect
from headrace_load.processes import found_in_time, headrace, running
from headrace_schemas.topics import TopicNames, topics

TOPICS = TopicNames.__struct_fields__


class KafkaSettingsError(ValueError):
    """A setting of the section `kafka` can't be used; the message names it and says what is allowed."""


class Running(Struct, frozen=True, kw_only=True):
    """A contender that was started. ``pids`` are the roots of its process trees, ``metrics`` the URLs of /metrics.

    ``check`` raises ProgramError when it has ended by itself.
    """

    pids: tuple[int, ...]
    metrics: tuple[str, ...] = ()
    check: Callable[[], None] = lambda: None


Start: TypeAlias = Callable[[], AbstractAsyncContextManager[Running]]
"""Starts the contender. When the block begins, it is ready, if that can be known; after the block it has ended."""


class System(TopicNames, frozen=True, kw_only=True):
    """A cluster with its topics: where requests are published and answers read.

    ``kafka`` holds further settings by their names in headrace's section `kafka`, as texts. ``metrics`` and
    ``worker_pids`` are of workers that somebody else runs, ``broker_pids`` of a broker on this machine; pids are the
    roots of process trees. A password may be in ``kafka``, so a file that holds a System is for its owner alone.
    """

    bootstrap: str
    kafka: dict[str, str] = {}  # noqa: RUF012 - msgspec copies it
    metrics: tuple[str, ...] = ()
    worker_pids: tuple[int, ...] = ()
    broker_pids: tuple[int, ...] = ()

    def kafka_settings(self) -> KafkaSettings:
        """Raises KafkaSettingsError."""
        return kafka_settings({**self.kafka, "bootstrap": self.bootstrap})

    def client_options(self) -> dict[str, Any]:
        """Arguments for a client of aiokafka itself. Raises KafkaSettingsError."""
        return client_options(self.kafka_settings())

    def client(self) -> AbstractAsyncContextManager[Client]:
        """Keep a client of headrace connected while the block runs. Entering raises KafkaSettingsError, KafkaError."""
        return connect(kafka=self.kafka_settings(), requests=self.requests, results=self.results)

    def consumer(self, **options: Any) -> AIOKafkaConsumer:
        """A consumer of aiokafka without a group, for an `async with`, with further ``options`` of it."""
        return AIOKafkaConsumer(**self.client_options(), enable_auto_commit=False, **options)

    @asynccontextmanager
    async def admin(self) -> AsyncIterator[AIOKafkaAdminClient]:
        """Keep an admin client of aiokafka while the block runs."""
        admin = AIOKafkaAdminClient(**self.client_options())
        await admin.start()
        try:
            yield admin
        finally:
            await admin.close()

    def environment(self) -> dict[str, str]:
        """The settings and topics as environment variables of `headrace`, so that no password shows in a list of
        processes.
        """
        kafka = {f"HEADRACE_KAFKA__{name.upper()}": value for name, value in self.kafka.items()}
        topics = {f"HEADRACE_TOPICS__{name.upper()}": getattr(self, name) for name in TOPICS}
        return {**kafka, "HEADRACE_KAFKA__BOOTSTRAP": self.bootstrap, **topics}


def prefixed(bootstrap: str, prefix: str, **more: Any) -> System:
    """The system whose topics have their own names behind ``prefix``."""
    names = {topic.field: topic.name for topic in topics(prefix)}
    return msgspec.convert({"bootstrap": bootstrap, **names, **more}, System)


def kafka_settings(values: Mapping[str, str]) -> KafkaSettings:
    """Settings of the section `kafka` from texts. Raises KafkaSettingsError."""
    fields = {field.name: field.type for field in msgspec.structs.fields(KafkaSettings)}
    found: dict[str, Any] = {}
    for name, value in values.items():
        if name not in fields:
            raise KafkaSettingsError(f"kafka.{name}: no such setting. Known: {', '.join(fields)}.")
        try:
            found[name] = msgspec.convert(value, fields[name], strict=False, dec_hook=lambda kind, text: kind(text))
        except msgspec.ValidationError as error:
            # The message leaves the value out, because it may be a secret.
            raise KafkaSettingsError(f"kafka.{name}: {error}") from error
    try:
        return KafkaSettings(**found)
    except ValueError as error:
        raise KafkaSettingsError(f"kafka: {error}") from error


def settings_of(section: str, environ: Mapping[str, str], sets: Sequence[str]) -> dict[str, str]:
    """The values of a section from HEADRACE_SECTION__NAME and ``section.name=value``, by name. The last one counts."""
    prefix = f"HEADRACE_{section.upper()}__"
    found = {name.removeprefix(prefix).lower(): value for name, value in environ.items() if name.startswith(prefix)}
    for assignment in sets:
        key, _, value = assignment.partition("=")
        if key.startswith(f"{section}."):
            found[key.removeprefix(f"{section}.")] = value
    return found


BrokerKind = Literal["apache", "embedded"]
EMBEDDED = {"idempotent": "false", "static_members": "false"}
"""What the embedded broker can't do."""

_ADDRESS = re.compile(r"^[\w.-]+:\d+(?:,[\w.-]+:\d+)*$", re.MULTILINE)


class Broker(Struct, frozen=True, kw_only=True):
    """A broker that was started here: its address, process tree, and the Kafka settings that it needs."""

    bootstrap: str
    pids: tuple[int, ...]
    kafka: dict[str, str]


@asynccontextmanager
async def broker(kind: BrokerKind, folder: Path) -> AsyncIterator[Broker]:
    """A broker of one node on this machine; its log is in ``folder``. Raises ProgramError when it does not start."""
    async with running("broker", "--kind", kind, log=folder / "broker.log") as process:
        address = await found_in_time(process, lambda: _ADDRESS.search(process.printed().decode(errors="replace")))
        yield Broker(bootstrap=address[0], pids=(process.pid,), kafka=dict(EMBEDDED) if kind == "embedded" else {})


async def make_topics(system: System, partitions: int) -> None:
    """Create the topics of ``system``. Raises ProgramError with what `headrace topics apply` said."""
    await headrace("topics", "apply", "--partitions", str(partitions), environment=system.environment())


async def remove_topics(system: System) -> None:
    """Delete the topics of ``system``, which have to be the harness's own. Raises a KafkaError of aiokafka."""
    async with system.admin() as admin:
        await admin.delete_topics([getattr(system, name) for name in TOPICS])


BOOTSTRAP = "127.0.0.1:9092"


class TargetError(ValueError):
    """The options that say where to run don't go together; the message says which and why."""


class TargetOptions(Struct, frozen=True, kw_only=True):
    """The options that say where to run, as they were given. ``sets`` are kafka.name=value and topics.name=value."""

    bootstrap: str | None = None
    broker: BrokerKind | None = None
    prefix: str | None = None
    sets: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    worker_pids: tuple[int, ...] = ()
    broker_pids: tuple[int, ...] = ()
    partitions: int = 4


class Target(Struct, frozen=True, kw_only=True):
    """The cluster of a command's runs. A ``transient`` one, with all its topics, ends with the command.

    ``existing`` is the system that others run there. A contender gets topics of its own, each run behind ``prefix``.
    """

    existing: System
    prefix: str
    partitions: int
    transient: bool

    def own(self, run: str) -> System:
        """The system of the run with this name (unique, of letters, digits, - and _). Its topics are not created
        yet.
        """
        found = self.existing
        return prefixed(found.bootstrap, f"{self.prefix}{run}.", kafka=found.kafka, broker_pids=found.broker_pids)


@asynccontextmanager
async def open_target(options: TargetOptions, environ: Mapping[str, str], folder: Path) -> AsyncIterator[Target]:
    """Find the cluster, or start one whose log is in ``folder``. ``environ`` may hold HEADRACE_KAFKA__ and _TOPICS__.

    Raises TargetError, KafkaSettingsError, and ProgramError when a broker does not start.
    """
    if options.broker is not None and options.bootstrap is not None:
        raise TargetError("--broker starts a broker and --bootstrap names one that runs: give one of them")
    kafka, topics = _settings(options, environ)
    if options.broker is None:
        bootstrap = options.bootstrap or kafka.get("bootstrap") or BOOTSTRAP
        yield _target(options, bootstrap, kafka, topics, options.broker_pids)
        return
    async with broker(options.broker, folder) as started:
        yield _target(options, started.bootstrap, {**kafka, **started.kafka}, topics, started.pids)


def _settings(options: TargetOptions, environ: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    for assignment in options.sets:
        key, equals, _ = assignment.partition("=")
        if not equals or key.partition(".")[0] not in ("kafka", "topics"):
            raise TargetError(
                f"--set {key}: write it as kafka.name=value or topics.name=value. "
                "Settings of a worker are in its contender's file."
            )
    kafka, topics = (settings_of(section, environ, options.sets) for section in ("kafka", "topics"))
    kafka_settings(kafka)
    if unknown := sorted(topics.keys() - {*TOPICS, "prefix", "partitions"}):
        raise TargetError(f"topics.{unknown[0]}: no such setting. Known: prefix, {', '.join(TOPICS)}.")
    return kafka, topics


def _target(
    options: TargetOptions, bootstrap: str, kafka: dict[str, str], topics: dict[str, str], broker_pids: tuple[int, ...]
) -> Target:
    given = options.prefix if options.prefix is not None else topics.get("prefix")
    system = prefixed(
        bootstrap,
        given or "",
        kafka={name: value for name, value in kafka.items() if name != "bootstrap"},
        metrics=options.metrics,
        worker_pids=options.worker_pids,
        broker_pids=broker_pids,
    )
    # Nobody else has topics with a generated prefix, so these topics may be deleted.
    generated = f"headrace-load-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}-"
    return Target(
        existing=msgspec.structs.replace(system, **{name: topics[name] for name in TOPICS if name in topics}),
        prefix=generated if given is None else f"{given}{generated}",
        partitions=options.partitions,
        transient=options.broker is not None,
    )
