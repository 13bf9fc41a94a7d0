"""The models topic, open for one command."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

from headrace.commands.common import cluster_of

if TYPE_CHECKING:
    from headrace.config import Settings
    from headrace.kafka.interface import Cluster
    from headrace.registry.models_log import ModelsLog
    from headrace.registry.models_writer import ModelsWriter


class Models(NamedTuple):
    """The topic as it was when it was opened, what writes to it, and the cluster that it is on."""

    log: ModelsLog
    writer: ModelsWriter
    cluster: Cluster


@asynccontextmanager
async def open_models(settings: Settings) -> AsyncIterator[Models]:
    """Read the topic to its end, and close it afterwards. Raises a KafkaError."""
    from headrace.registry.models_log import ModelsLog
    from headrace.registry.models_writer import ModelsWriter

    topic = settings.topics.names().models
    cluster = cluster_of(settings)
    log, producer = ModelsLog(cluster, topic), cluster.producer()
    try:
        await log.start()
        await producer.start()
        yield Models(log, ModelsWriter(producer, topic), cluster)
    finally:
        await producer.stop()
        await log.stop()
