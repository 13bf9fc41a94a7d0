"""Where the demo takes place: a broker, topics, and the settings that its workers are started with."""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import msgspec

from headrace.config import AdminSettings, LogSettings, Settings, TopicsSettings
from headrace.config.sources import PREFIX, shown
from headrace.core.fields import Secret
from headrace.demo.texts import Texts
from headrace.kafka.aio import AioKafkaCluster
from headrace.kafka.brokers.apache import apache_broker
from headrace.kafka.brokers.embedded import embedded_broker, embedded_settings
from headrace.kafka.settings import KafkaSettings
from headrace.kafka.topics import WantedTopic, carry_out, look
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
