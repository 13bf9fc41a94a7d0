"""A gateway over a real broker and a real socket, where a few lines stand in for the worker."""

from __future__ import annotations

import asyncio
import ssl
import uuid
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
import msgspec
from prometheus_client import CollectorRegistry

from headrace.config import TopicsSettings
from headrace.config.gateway import GatewaySettings
from headrace.core.clock import SystemClock
from headrace.gateway.gateway import Gateway
from headrace.gateway.metrics import GatewayMetrics
from headrace.kafka.aio import AioKafkaCluster
from headrace.kafka.interface import Outgoing, TopicPartition, TopicSpec, connected
from headrace.kafka.settings import KafkaSettings
from headrace.process.tracing import NO_TRACER, Tracer
from headrace.registry.compacted_topics import KeysWriter, ModelsWriter
from headrace.security.api_keys import KeyRole, id_of, make_key
from headrace_load.processes import slowness
from headrace_schemas.codec import decode_request, encode_result
from headrace_schemas.headers import copied_headers
from headrace_schemas.paths import RequestShape
from headrace_schemas.records import ClassifyResult, ModelAlias, ModelVersion, Score, Status
from headrace_schemas.topics import topics as all_topics
from tests.support.waiting import until, within

LABELS = ("even", "odd", "other")
LIMIT_S = 60.0


def label_of(text: str) -> str:
    return LABELS[zlib.crc32(text.encode()) % len(LABELS)]


class GatewaySite:
    """Topics of their own, gateways, and a task that answers while ``answering`` is set."""

    def __init__(self, bootstrap: str, *, idempotent: bool = False, partitions: int = 4) -> None:
        self.bootstrap = bootstrap
        self.idempotent = idempotent
        self.prefix = f"g{uuid.uuid4().hex[:8]}."
        self.partitions = partitions
        self.names = TopicsSettings(prefix=self.prefix).names()
        self.cluster = AioKafkaCluster(
            KafkaSettings(
                bootstrap=bootstrap,
                idempotent=idempotent,
                static_members=False,
                # The embedded broker lets a join last half a session, and a second at least; a stop waits for the join.
                session_timeout_ms=2000,
                heartbeat_interval_ms=200,
            )
        )
        self.answering = asyncio.Event()
        self.answering.set()
        self.verify: ssl.SSLContext | bool = True
        self.skipped: set[str] = set()
        """Texts that are passed over: later ones are answered, these never."""

    def answer_again(self) -> None:
        """Answer every text, as at first."""
        self.answering.set()
        self.skipped.clear()

    async def create_topics(self) -> None:
        async with connected(self.cluster.admin()) as admin:
            for topic in all_topics("", self.partitions):
                name = getattr(self.names, topic.field)
                await admin.create_topic(TopicSpec(name=name, partitions=topic.partitions))

    async def answer(self) -> None:
        async with connected(self.cluster.consumer()) as consumer, connected(self.cluster.producer()) as producer:
            names = [TopicPartition(self.names.requests, number) for number in range(self.partitions)]
            consumer.assign(names)
            for name in names:
                consumer.seek(name, 0)
            while True:
                await self.answering.wait()
                for name, records in (await consumer.fetch(max_records=500, timeout_s=0.2)).items():
                    await self.answering.wait()
                    answers = [self._answer(record) for record in records]
                    if known := [one for one in answers if one is not None]:
                        await producer.send_batch(self.names.results, name.partition, known)

    def _answer(self, record: Any) -> Outgoing | None:
        request = decode_request(record.value)
        if request.text in self.skipped:
            return None
        label, failed = label_of(request.text), request.text.startswith("fail")
        ranking = (Score(label, 0.5), *(Score(other, 0.25) for other in LABELS if other != label))
        result = ClassifyResult(
            offset=record.offset,
            after=record.offset - 1,
            crc=zlib.crc32(record.value),
            status=Status.FAILED if failed else Status.OK,
            version="v1",
            label=None if failed else label,
            score=None if failed else 0.5,
            ranking=() if failed else ranking,
            id=request.id,
            reason="told to fail" if failed else None,
        )
        return Outgoing(encode_result(result), record.key, copied_headers(record.headers))

    async def add_key(self, *roles: KeyRole, **parts: Any) -> str:
        token, record = make_key(roles or [KeyRole.CLIENT], now_ms=SystemClock().now_ms(), **parts)
        async with connected(self.cluster.producer()) as producer:
            await KeysWriter(producer, self.names.keys).publish([record])
        return token

    async def add_version(self, version: str, alias: str | None = "champion") -> None:
        records: list[Any] = [
            ModelVersion(
                name="default", version=version, uri=f"memory://{version}", sha256="", size=0, labels=LABELS,
                created_at_ms=SystemClock().now_ms(),
            )
        ]  # fmt: skip
        if alias is not None:
            records.append(ModelAlias(name="default", alias=alias, version=version, moved_at_ms=0))
        async with connected(self.cluster.producer()) as producer:
            await ModelsWriter(producer, self.names.models).publish(records)

    @asynccontextmanager
    async def gateway(self, *, tracer: Tracer = NO_TRACER, **settings: Any) -> AsyncIterator[RunningGateway]:
        """A gateway that asks for no key unless it is told to, ready to answer."""
        own = msgspec.structs.replace(
            GatewaySettings(port=0, keys=False, group=f"{self.prefix}gateways", drain=2.0), **settings
        )
        gateway = Gateway(
            cluster=AioKafkaCluster(self.cluster.settings),
            topics=self.names,
            settings=own,
            shape=RequestShape(),
            max_request_size=1 << 20,
            model_name="default",
            clock=SystemClock(),
            metrics=GatewayMetrics(CollectorRegistry()),
            process=f"gateway-{uuid.uuid4().hex[:8]}",
            tracer=tracer,
        )
        stop = asyncio.Event()
        address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(gateway.run(stop, address.set_result))
        async with within(LIMIT_S, "the start of a gateway"):
            await asyncio.wait([task, address], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            await task
        running = RunningGateway(self, gateway, address.result(), stop, task)
        try:
            limit_s = LIMIT_S * slowness()
            async with httpx.AsyncClient(base_url=running.address, timeout=limit_s, verify=self.verify) as client:
                running.http = client
                yield running
                stop.set()
                async with within(LIMIT_S, "the end of a gateway"):
                    await asyncio.wait([task])
                if not running.cut_off:
                    task.result()
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


class RunningGateway:
    """``http`` is a client of it; one that was ``cut_off`` by its test has no good end."""

    http: httpx.AsyncClient
    cut_off = False

    def __init__(
        self, site: GatewaySite, gateway: Gateway, address: str, stop: asyncio.Event, task: asyncio.Task[None]
    ) -> None:
        self.site = site
        self.gateway = gateway
        self.address = address
        self.stop = stop
        self.task = task

    async def known(self, *tokens: str) -> None:
        """Wait until it has read of the keys."""
        await until(lambda: all(id_of(token) in self.gateway._keys.keys for token in tokens))

    async def classify(self, body: Any, **more: Any) -> httpx.Response:
        return await self.http.post("/v1/classify", json=body, **more)


@asynccontextmanager
async def gateway_site(bootstrap: str, **more: Any) -> AsyncIterator[GatewaySite]:
    """Topics, and somebody who answers there."""
    site = GatewaySite(bootstrap, **more)
    await site.create_topics()
    answering = asyncio.create_task(site.answer())
    try:
        yield site
    finally:
        answering.cancel()
        with suppress(asyncio.CancelledError):
            await answering
