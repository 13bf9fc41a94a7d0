"""The models topic and the workers topic, open for one command."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

from headrace.commands.common import cluster_of

if TYPE_CHECKING:
    from headrace.config import Settings
    from headrace.kafka.interface import Appended, Cluster, Outgoing, Producer
    from headrace.registry.models_log import ModelsLog, ModelsWriter
    from headrace.registry.workers_log import WorkersLog, WorkersWriter


class Models(NamedTuple):
    """The topic as it was when it was opened, what writes to it, and the cluster that it is on."""

    log: ModelsLog
    writer: ModelsWriter
    cluster: Cluster


class _StartedByUse:
    """A producer that connects when the first record is sent: who only reads needs no right to write."""

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
    from headrace.registry.models_log import ModelsLog, ModelsWriter

    topic = settings.topics.names().models
    cluster = cluster_of(settings)
    log, producer = ModelsLog(cluster, topic), cluster.producer()
    try:
        await log.start()
        yield Models(log, ModelsWriter(_StartedByUse(producer), topic), cluster)
    finally:
        await producer.stop()
        await log.stop()


class Workers(NamedTuple):
    """The topic as it was when it was opened, and what writes to it."""

    log: WorkersLog
    writer: WorkersWriter


@asynccontextmanager
async def open_workers(settings: Settings) -> AsyncIterator[Workers]:
    """Read the workers topic to its end, and the models topic beside it; close both afterwards. Raises a KafkaError."""
    from headrace.registry.workers_log import WorkersLog, WorkersWriter

    topic = settings.topics.names().workers
    async with open_models(settings) as models:
        log, producer = WorkersLog(models.cluster, topic, models.log), models.cluster.producer()
        try:
            await log.start()
            yield Workers(log, WorkersWriter(_StartedByUse(producer), topic))
        finally:
            await producer.stop()
            await log.stop()
