"""Where the runs of a command happen: a cluster, the names that topics get there, and what is seen beside it."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
from msgspec import Struct

from headrace_load.started import BrokerKind, broker
from headrace_load.system import TOPICS, System, kafka_settings, prefixed, settings_of

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
