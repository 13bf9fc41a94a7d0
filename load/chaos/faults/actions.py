"""What several faults do: act at an exact point of a worker, publish requests and versions, wait for what follows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from headrace.client import Published
from headrace.kafka.aio import AioKafkaCluster
from headrace.kafka.interface import Outgoing, Producer
from headrace.model.artifact import About, assemble, load, save
from headrace.model.places import as_told
from headrace.registry import compacted_topics
from headrace.registry.compacted_topics import ModelsWriter
from headrace.registry.versions import version_record
from headrace_load.processes import slowness, until
from headrace_load.target import System, make_topics
from headrace_schemas.records import ClassifyResult, ModelAlias, ModelsRecord, ModelVersion
from load.chaos.cluster import Passing, Way
from load.chaos.world import Worker, World

LIMIT_S = 60.0


async def at(
    world: World, worker: Worker, way: Way, api: int, act: Callable[[], Coroutine[Any, Any, bool]], *, least: int = 0
) -> None:
    """Call ``act`` once, when a frame of ``worker`` of that kind and of at least ``least`` bytes passes.

    ``act`` returns whether the frame goes on. Raises TimeoutError when none passes, ProgramError when the
    worker ends first, and what ``act`` raises.
    """
    begun = asyncio.Event()
    acting: list[asyncio.Task[bool]] = []

    async def hook(passing: Passing) -> bool:
        meant = passing.way is way and (passing.request.api, passing.request.client) == (api, worker.name)
        if begun.is_set() or not meant or passing.size < least:
            return True
        # In a task of its own: ``act`` may end this very connection, and with it the coroutine that forwards.
        acting.append(asyncio.create_task(act()))
        begun.set()
        return await asyncio.shield(acting[0])

    frame = f"a frame of {worker.name} {way.value} (API {api}, at least {least} bytes)"
    with world.cluster.hindered(hook=hook):
        await until(begun.is_set, frame, LIMIT_S, worker.check)
        await acting[0]


ANSWERED_S = 60.0
REFUSED_S = 60.0
REFUSED = 3
"""The exit code of a process that needs a person."""


async def refused(workers: Iterable[Worker], *words: str) -> str:
    """Wait until each worker ended because it refuses to go on; each must have said all ``words``. Returns a message.

    Raises TimeoutError, and AssertionError when one ended otherwise or said something else.
    """
    message = ""
    for worker in workers:
        code = await worker.ended(REFUSED_S)
        lines = worker.said().splitlines()
        message = " ".join(line for line in lines if line.startswith("headrace: "))
        assert code == REFUSED, f"{worker.name} ended with {code} and not with {REFUSED}: {message}"
        for word in words:
            assert word in message, f"{worker.name} refused without saying {word!r}: {message}"
    return message


async def published(world: World, texts: Iterable[str], *, partition: int | None = None) -> list[Published]:
    """Publish requests beside the stream."""
    async with world.system.client() as client:
        return await client.publish_many(texts, partition=partition)


async def answered(
    system: System, requests: Iterable[Published], *, limit_s: float = ANSWERED_S
) -> list[ClassifyResult]:
    """Wait for the answers to ``requests`` in the results of ``system``, as a reader that begins at the beginning.

    Raises AssertionError when a request has no answer, or an answer belongs to another text.
    """
    missing = {(request.partition, request.offset): request.crc for request in requests}
    found: list[ClassifyResult] = []
    deadline = time.monotonic() + limit_s * slowness()
    async with system.client() as client, client.reader("beginning") as reader:
        while missing and time.monotonic() < deadline:
            for answer in await reader.read():
                crc = missing.pop((answer.partition, answer.result.offset), None)
                if crc is not None:
                    assert crc == answer.result.crc, f"{answer.result} answers another request"
                    found.append(answer.result)
    assert not missing, f"nobody answered in time the requests at {sorted(missing)[:5]}"
    return found


async def begun_anew(world: World, texts: Iterable[str]) -> None:
    """Do what a refusal asks for, a new group with results of its own, and check that it answers."""
    system = msgspec.structs.replace(world.system, results=f"{world.system.results}-anew")
    await make_topics(system, len(await world.cluster.leaders(world.system.requests)))
    await world.workers.start(
        "anew",
        options=("--group", f"{world.workers.group}-anew", "--results", system.results),
    )
    await answered(system, await published(world, texts))


T = TypeVar("T")


async def models_records(system: System, kind: type[T]) -> list[T]:
    """Every record of that kind up to the topic's present end, in order, as far as compaction has left it.

    Rubbish is passed over. Raises a KafkaError.
    """
    cluster = AioKafkaCluster(system.kafka_settings())
    return [record async for _, record in compacted_topics.models_records(cluster, system.models, kind)]


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
    """The workers that run; every one has to do what is expected."""
    return list(world.workers.running.values())


async def load_refused(world: World, version: ModelVersion, why: str) -> None:
    """Wait until every worker says why it can't load ``version``, and check that the one before still answers."""

    def said(worker: Worker) -> bool:
        failed = [event for event in worker.events("model.load_failed") if event["version"] == version.version]
        return any(why in str(event["why"]) for event in failed)

    await world.until(lambda: all(said(worker) for worker in workers_of(world)), "every worker's word of it")
    swaps = [event["version"] for worker in workers_of(world) for event in worker.events("model.swapped")]
    assert version.version not in swaps, "a version that was refused answers"
    await goes_on(world)


async def goes_on(world: World) -> None:
    """Check that requests are answered."""
    before = world.stream.answered
    await world.until(lambda: world.stream.answered > before + GOES_ON, f"{GOES_ON} more answers")


async def taken_up(world: World, version: ModelVersion) -> None:
    """Wait until every worker has swapped to ``version``, and check that it answers."""
    await swapped(world, version.version)
    await goes_on(world)


async def swapped(world: World, version: str | None) -> None:
    """Wait until every worker says that it has swapped to ``version``, and to nothing else since."""

    def swapped_to(worker: Worker) -> bool:
        swaps = worker.events("model.swapped")
        return bool(swaps) and swaps[-1]["version"] == version

    await world.until(lambda: all(map(swapped_to, workers_of(world))), f"the swap of all workers to {version}")


def file_of(version: ModelVersion) -> Path:
    """The file of an artifact."""
    return Path(version.uri.removeprefix("file://"))


def put(version: ModelVersion, change: Callable[[bytes], bytes]) -> bytes:
    """Change the bytes of an artifact where it lies. Returns the bytes from before."""
    file = file_of(version)
    data = file.read_bytes()
    file.write_bytes(change(data))
    return data
