"""A cluster of the twin, a producer and workers on a turned clock, for the tests of workers."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import msgspec

from headrace.kafka.interface import Appended, Outgoing, TopicPartition, TopicSpec
from headrace.process.tracing import NO_TRACER, Tracer
from headrace.registry.compacted_topics import ModelsWriter
from headrace.worker.metrics import WorkerMetrics
from headrace.worker.pipeline import Offload
from headrace.worker.stages.infer import Model
from headrace.worker.versions import Load
from headrace.worker.worker import Worker
from headrace_schemas.codec import decode_result, encode_request
from headrace_schemas.paths import RequestShape
from headrace_schemas.records import ClassifyRequest, ClassifyResult, ModelAlias, ModelVersion
from tests.support.memory_kafka import MemoryCluster
from tests.support.models import LABELS, SumModel
from tests.support.simulation import METRICS, SETTINGS, TOPICS
from tests.support.turned_loop import TurnedClock
from tests.support.turned_tests import TwinCluster, after_a_moment, on_turned_clock


class WorkerCluster(TwinCluster):
    """Workers are named; ``faults`` is called at every point of every call of theirs."""

    def __init__(self, partitions: int = 1) -> None:
        self.clock = TurnedClock()
        self.fault: Callable[[str, str], Coroutine[Any, Any, None]] | None = None
        self.cluster = MemoryCluster(self.clock, faults=self)
        for name in (TOPICS.requests, TOPICS.results, TOPICS.dead_letters):
            self.cluster.create_topic(TopicSpec(name=name, partitions=partitions))
        for name in (TOPICS.models, TOPICS.workers):
            self.cluster.create_topic(TopicSpec(name=name, partitions=1))
        self.producer = self.cluster.producer()
        self.workers: dict[str, Worker] = {}
        self.runs: dict[str, asyncio.Task[None]] = {}
        self.stops: dict[str, asyncio.Event] = {}
        self.started = 0

    async def point(self, member: str, name: str) -> None:
        await asyncio.sleep(0)
        if self.fault is not None and member != "local":
            await self.fault(member, name)

    def start(
        self,
        name: str = "w0",
        *,
        backend: SumModel | None = None,
        canaries: Sequence[tuple[bytes, str]] = (),
        answering: Model | Load | None = None,
        offload: Offload | None = None,
        metrics: WorkerMetrics = METRICS,
        shape: RequestShape | None = None,
        make: Callable[..., Worker] = Worker,
        topics: Any = TOPICS,
        tracer: Tracer = NO_TRACER,
        **settings: Any,
    ) -> asyncio.Task[None]:
        self.started += 1
        worker = make(
            cluster=self.cluster.node(name),
            topics=topics,
            settings=msgspec.structs.replace(SETTINGS, **settings),
            shape=shape or RequestShape(),
            model=answering or Model("v1", LABELS, backend or SumModel(), tuple(canaries)),
            clock=self.clock,
            offload=offload or after_a_moment,
            metrics=metrics,
            process=f"{name}-{self.started}",
            **({} if tracer is NO_TRACER else {"tracer": tracer}),
        )
        self.workers[name] = worker
        self.stops[name] = asyncio.Event()
        self.runs[name] = asyncio.create_task(worker.run(self.stops[name]))
        return self.runs[name]

    def kill(self, name: str) -> None:
        self.cluster.node(name).kill()
        self.runs.pop(name).cancel()

    async def stop(self, name: str) -> None:
        self.stops[name].set()
        await asyncio.wait_for(self.runs.pop(name), 30)

    async def publish(self, *texts: str, partition: int = 0, **parts: Any) -> list[Appended]:
        return [await self.publish_value(encode_request(ClassifyRequest(text=t)), partition, **parts) for t in texts]

    async def publish_value(self, value: bytes | None, partition: int = 0, **parts: Any) -> Appended:
        return await self.producer.send(TOPICS.requests, Outgoing(value, **parts), partition=partition)

    async def publish_version(self, version: str, **parts: Any) -> None:
        record = ModelVersion(
            name=SETTINGS.model_name, version=version, uri=f"memory://{version}", sha256="", size=0, labels=LABELS,
            created_at_ms=self.clock.now_ms(), **parts,
        )  # fmt: skip
        await ModelsWriter(self.producer, TOPICS.models).publish([record])

    async def point_alias(self, version: str, *, previous: str | None = None, alias: str = SETTINGS.model) -> None:
        record = ModelAlias(
            name=SETTINGS.model_name, alias=alias, version=version, moved_at_ms=self.clock.now_ms(), previous=previous
        )
        await ModelsWriter(self.producer, TOPICS.models).publish([record])

    def log(self, topic: str, partition: int = 0) -> list[Any]:
        return self.cluster.log(TopicPartition(topic, partition)).records

    def answers(self, partition: int = 0) -> list[ClassifyResult]:
        return [decode_result(record.value) for record in self.log(TOPICS.results, partition)]

    def crc(self, offset: int, partition: int = 0) -> int:
        """The CRC-32 of the request at ``offset``."""
        return zlib.crc32(next(one.value for one in self.log(TOPICS.requests, partition) if one.offset == offset))

    async def answered(self, count: int, partition: int = 0, limit: float = 60.0) -> list[ClassifyResult]:
        """Wait until the results partition holds ``count`` answers."""
        await self.until(lambda: len(self.log(TOPICS.results, partition)) >= count, limit)
        return self.answers(partition)

    async def running(self, name: str = "w0") -> None:
        """Wait until the worker owns partitions and knows where to go on in each."""
        await self.until(lambda: self.workers[name].unready is None)


story = on_turned_clock(WorkerCluster)
