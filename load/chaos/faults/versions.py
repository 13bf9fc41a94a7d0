"""The models topic of a run: versions that faults publish for workers to follow, and what the workers do with them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from headrace.kafka.aio import AioKafkaCluster
from headrace.kafka.interface import Outgoing, Producer
from headrace.model.artifact import About, assemble, load, save
from headrace.model.places import as_told
from headrace.registry import models_log
from headrace.registry.models_log import ModelsWriter
from headrace.registry.versions import version_record
from headrace_load.target import System
from headrace_schemas.records import ModelAlias, ModelsRecord, ModelVersion
from load.chaos.fault import World
from load.chaos.workers import Worker

T = TypeVar("T")


async def models_records(system: System, kind: type[T]) -> list[T]:
    """Every record of that kind up to the topic's present end, in order; what compaction takes is gone.

    Rubbish is passed over. Raises a KafkaError.
    """
    cluster = AioKafkaCluster(system.kafka_settings())
    return [record async for _, record in models_log.models_records(cluster, system.models, kind)]


async def publish(system: System, *records: ModelsRecord) -> None:
    """Append records, as one batch. Raises a KafkaError."""
    async with _producer(system) as producer:
        await ModelsWriter(producer, system.models).publish(records)


async def publish_bytes(system: System, topic: str, *records: Outgoing) -> None:
    """Append bytes as they are to partition 0. Raises a KafkaError."""
    async with _producer(system) as producer:
        await producer.send_batch(topic, 0, records)


@asynccontextmanager
async def _producer(system: System) -> AsyncIterator[Producer]:
    producer = AioKafkaCluster(system.kafka_settings()).producer()
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


NAME = "default"
GOES_ON = 400
"""Answers that show that the version before still answers."""


def made(world: World, name: str) -> ModelVersion:
    """A version that answers as the run's own does, with another name; its file is in the run's store."""
    file = world.folder / "store" / f"{name}.safetensors"
    file.parent.mkdir(exist_ok=True)
    artifact = assemble(load(str(world.model)).network, About(parent=name))
    save(artifact, str(file))
    return version_record(artifact, name=NAME, where=as_told(str(file)), now_ms=time.time_ns() // 1_000_000)


async def promote(world: World, version: ModelVersion) -> None:
    """Publish a version and point the champion at it."""
    await publish(world.system, version, alias(version.version))


def alias(version: str) -> ModelAlias:
    """The record that moves the champion there."""
    return ModelAlias(name=NAME, alias="champion", version=version, moved_at_ms=time.time_ns() // 1_000_000)


def workers_of(world: World) -> list[Worker]:
    """The workers that run, all of which have to do what is expected."""
    return list(world.workers.running.values())


async def refused(world: World, version: ModelVersion, why: str) -> None:
    """Wait until every worker says that it can't load ``version`` and why, and see the one before answer on."""

    def said(worker: Worker) -> bool:
        failed = [event for event in worker.events("model.load_failed") if event["version"] == version.version]
        return any(why in str(event["why"]) for event in failed)

    await world.until(lambda: all(said(worker) for worker in workers_of(world)), "every worker's word of it")
    assert not any(swapped_to(worker, version) for worker in workers_of(world)), "a version that was refused answers"
    await goes_on(world)


async def goes_on(world: World) -> None:
    """See that requests are answered."""
    before = world.stream.answered
    await world.until(lambda: world.stream.answered > before + GOES_ON, f"{GOES_ON} more answers")


async def taken_up(world: World, version: ModelVersion) -> None:
    """Wait until every worker answers by ``version``."""
    await world.until(
        lambda: all(swapped_to(worker, version) for worker in workers_of(world)),
        f"the swap of all workers to {version}",
    )
    await goes_on(world)


def swapped_to(worker: Worker, version: ModelVersion) -> bool:
    """Whether the worker has swapped to ``version``, as it says."""
    return any(event["version"] == version.version for event in worker.events("model.swapped"))


def file_of(version: ModelVersion) -> Path:
    """The file of an artifact."""
    return Path(version.uri.removeprefix("file://"))


def put(version: ModelVersion, change: Callable[[bytes], bytes]) -> bytes:
    """Change the bytes of an artifact where it lies; what they were."""
    file = file_of(version)
    data = file.read_bytes()
    file.write_bytes(change(data))
    return data
