"""The surroundings of a demo: a broker, topics, the settings of its child processes, and these, which never
outlive it.
"""

from __future__ import annotations

import asyncio
import enum
import shutil
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from headrace.config import AdminSettings, LogSettings, Settings, TopicsSettings
from headrace.config.loading import PREFIX, shown
from headrace.core.clock import Clock
from headrace.core.errors import one_of_all
from headrace.core.fields import Secret
from headrace.demo.texts import Texts, write_rows
from headrace.kafka.aio import AioKafkaCluster
from headrace.kafka.brokers import apache_broker, embedded_broker, embedded_settings
from headrace.kafka.settings import KafkaSettings
from headrace.kafka.topics import WantedTopic, carry_out, look
from headrace.learning.data.files import Rows
from headrace.process.children import Child, child, headrace
from headrace.worker.settings import WorkerSettings
from headrace_schemas.topics import topics

DRAIN_S = 3.0
EMBEDDED_FETCH_WAIT_MS = 20


class Broker(enum.Enum):
    """The broker to start if no cluster is given."""

    EMBEDDED = "embedded broker, all in memory"
    APACHE = "Apache Kafka, started for this"


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to show: a stream of ``rate`` texts a second for ``seconds``; the learning demo takes its next step after
    ``seconds``.

    ``kafka`` None starts ``broker``. Files that stay are kept in ``keep_in``.
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
    """Yield how to reach the cluster: the ``given`` one, or a ``broker`` that runs while the block does.

    Raises BrokerStartError.
    """
    if given is not None:
        yield given
    elif broker is Broker.APACHE:
        async with apache_broker() as brokers:
            yield KafkaSettings(bootstrap=brokers.bootstrap)
    else:
        async with embedded_broker() as bootstrap:
            # While a fetch waits, the embedded broker looks for new records, more rarely the longer the wait may be.
            yield msgspec.structs.replace(embedded_settings(bootstrap), fetch_max_wait_ms=EMBEDDED_FETCH_WAIT_MS)


def prefix_for(random: Random) -> str:
    """A topic prefix that no other run has, so that a demo never mixes with anybody's topics."""
    return f"demo-{random.randrange(16**6):06x}-"


def demo_settings(kafka: KafkaSettings, prefix: str, model: str) -> Settings:
    """The settings of a worker of the demo. Of the user's settings it takes only ``kafka``."""
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
    """``section.field=value`` for every value that is not the default, without secrets, because a list of processes
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
    """The environment of a child that gets its settings by :func:`as_sets`: ``environ`` without the user's settings,
    but with the secrets.

    Files that a killed child leaves behind, such as its ranks' logs, are in the folder ``temporary``.
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


@asynccontextmanager
async def beside(*others: Coroutine[Any, Any, object]) -> AsyncIterator[None]:
    """Run ``others`` beside the block, and end them with it. Their errors end the block and are raised."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in others]
            yield
            for task in tasks:
                task.cancel()
    except ExceptionGroup as raised:
        raise one_of_all(raised) from raised


START_LIMIT_S = 120.0
POLL_S = 0.05


class _Event(msgspec.Struct, frozen=True):
    event: str
    partitions: tuple[int, ...] = ()
    partition: int = -1


async def ready(workers: Child, members: int, partitions: int, clock: Clock) -> None:
    """Wait until all ``members`` answer. Raises ProgramError when that takes longer than START_LIMIT_S."""
    until = clock.monotonic() + START_LIMIT_S
    while not all_answer(workers.printed().splitlines(), members, partitions):
        if clock.monotonic() > until:
            raise workers.error(f"The workers were not ready in {START_LIMIT_S:g} s.")
        await clock.sleep(POLL_S)


def workers(
    settings: Settings, members: int, *, environ: Mapping[str, str], folder: Path
) -> AbstractAsyncContextManager[Child]:
    """Run ``members`` workers with ``settings`` (log.format has to be json) while the block runs."""
    return child(
        headrace(*as_options(settings), "worker", "--processes", str(members)),
        name="`headrace worker`",
        environ=environ,
        folder=folder,
        log=folder / "workers.log",
        # The parent itself waits for its members three times this limit.
        grace_s=4 * settings.worker.drain_timeout,
    )


def all_answer(lines: Iterable[bytes], members: int, partitions: int) -> bool:
    """Whether, by their log, ``members`` workers share all ``partitions`` and have resumed each.

    At a rebalance every member gets its partitions anew, so the last assignments hold.
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
    """Run `headrace train` on ``rows``, its output beside ours; it writes ``model``.

    Raises as :meth:`Child.check` does.
    """
    folder = model.parent
    data = folder / "texts.jsonl"
    write_rows(rows, data)
    # Names relative to its folder, so that its output does not point at files that will be removed. A quick model, not
    # the best one, so that people see the whole demo before they lose patience.
    command = headrace("train", data.name, "--out", model.name, "--quick", "--max-tokens", "128")
    async with child(command, environ=environ, folder=folder, log=None, grace_s=GRACE_S) as training:
        if code := await training.process.wait():
            raise training.error(f"`headrace train` ended with exit code {code}; what it printed says why.")


def keep(model: Path, at: Path) -> None:
    """Copy ``model`` to ``at`` in one step, because a worker may be loading the file of an earlier demo."""
    at.parent.mkdir(parents=True, exist_ok=True)
    half = at.with_name(f"{at.name}.{model.parent.name}")
    shutil.copyfile(model, half)
    half.replace(at)
