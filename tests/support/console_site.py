"""The console on topics of its own of a real broker, with a few lines in place of the worker, and served for real."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import uuid
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import uvicorn
from starlette.applications import Starlette

from headrace.config import Settings
from headrace.config.gateway import GatewaySettings
from headrace.config.settings import TopicsSettings
from headrace.core.clock import SystemClock
from headrace.core.fields import Secret
from headrace.files.annotations import Doubted
from headrace.gateway.console.access import Caller
from headrace.gateway.console.console import Console
from headrace.kafka.aio import AioKafkaCluster
from headrace.kafka.interface import Appended, Cluster, Outgoing, TopicSpec, connected
from headrace.kafka.range_reader import read_topic
from headrace.kafka.settings import KafkaSettings
from headrace.learning.doubting import Asked, Found, Outcome
from headrace.model.artifact import Artifact, save
from headrace.model.places import as_told
from headrace.registry.compacted_topics import ModelsWriter
from headrace.registry.versions import version_record
from headrace.security.api_keys import KeyRole
from headrace.trainer.settings import TrainerSettings
from headrace_schemas.codec import decode_label, encode_result
from headrace_schemas.records import (
    ClassifyResult,
    LabelledText,
    Lineage,
    ModelAlias,
    ModelsRecord,
    ModelVersion,
    OffsetRange,
    Score,
    Status,
)
from tests.support.desk_texts import desk_artifact

PARTITIONS = 2
ONE_PARTITION = ("models", "workers", "teaching", "keys", "usage", "idempotency")

CALLERS = {
    "ana's token": Caller("ana", frozenset({KeyRole.LABELLER})),
    "ben's token": Caller("ben", frozenset({KeyRole.LABELLER})),
    "olga's token": Caller("olga", frozenset({KeyRole.OPERATOR})),
    "cid's token": Caller("cid", frozenset({KeyRole.CLIENT})),
    "all's token": Caller("all", frozenset(KeyRole)),
}

Says = Callable[[str], tuple[str | None, Sequence[Score]]]
"""From a text to its label and ranking."""


def by_words(text: str) -> tuple[str | None, Sequence[Score]]:
    """``refund`` in a text makes it a refund; ``maybe`` brings both labels near; ``unclear`` leaves it without one."""
    first, second = ("refund", "card") if "refund" in text else ("card", "refund")
    best = 0.51 + zlib.crc32(text.encode()) % 100 / 1e4 if "maybe" in text or "unclear" in text else 0.9
    return None if "unclear" in text else first, (Score(first, best), Score(second, 1 - best))


class ConsoleSite:
    """Topics of their own on the broker at ``bootstrap``; with ``settings`` a second console on another site's."""

    def __init__(self, bootstrap: str, store: Path | None = None, settings: Settings | None = None) -> None:
        self.settings = settings or Settings(
            trainer=TrainerSettings() if store is None else TrainerSettings(store=str(store)),
            kafka=KafkaSettings(bootstrap=bootstrap, idempotent=False, static_members=False),
            topics=TopicsSettings(prefix=f"c{uuid.uuid4().hex[:8]}."),
            # So that a session holds at every console of these settings.
            gateway=GatewaySettings(session_secret=Secret("a secret of the tests, long enough")),
        )
        self.names = self.settings.topics.names()
        self.cluster: Cluster = AioKafkaCluster(self.settings.kafka)
        self.callers = dict(CALLERS)
        self.suspects: list[Doubted] = []
        """What a search for suspected errors finds, once it ``may_search``."""
        self.may_search = asyncio.Event()
        self.may_search.set()
        self.console = Console(
            self.cluster, self.settings, SystemClock(), authorize=self.callers.get, search=self._search
        )
        self.port = 0

    async def _search(self, asked: bytes) -> bytes:
        await self.may_search.wait()
        rows = len(msgspec.json.decode(asked, type=Asked).labels)
        return msgspec.json.encode(Outcome(Found(suspects=self.suspects, rows=rows, dropped="", alone=0)))

    async def create_topics(self) -> None:
        async with connected(self.cluster.admin()) as admin:
            for field in self.names.__struct_fields__:
                partitions = 1 if field in ONE_PARTITION else PARTITIONS
                await admin.create_topic(TopicSpec(name=getattr(self.names, field), partitions=partitions))

    async def ask(self, texts: Sequence[str]) -> list[Appended]:
        """Publish requests, to the partitions in turn; where each went."""
        async with connected(self.cluster.producer()) as producer:
            return [
                await producer.send(
                    self.names.requests,
                    Outgoing(text.encode(), None, [("content-type", b"text/plain")]),
                    partition=number % PARTITIONS,
                )
                for number, text in enumerate(texts)
            ]

    async def answer(self, texts: Sequence[str], says: Says = by_words, version: str = "v1") -> None:
        """Publish requests and their answers."""
        places = await self.ask(texts)
        async with connected(self.cluster.producer()) as producer:
            for text, place in zip(texts, places, strict=True):
                label, ranking = says(text)
                result = ClassifyResult(
                    offset=place.offset,
                    after=place.offset - 1,
                    crc=zlib.crc32(text.encode()),
                    status=Status.OK,
                    version=version,
                    label=label,
                    score=ranking[0].score,
                    ranking=tuple(ranking),
                )
                await producer.send(self.names.results, Outgoing(encode_result(result)), partition=place.partition)

    async def publish(self, *records: ModelsRecord) -> None:
        """Records onto the models topic."""
        async with connected(self.cluster.producer()) as producer:
            await ModelsWriter(producer, self.names.models).publish(records)

    async def versions(self, *names: str, labels: tuple[str, ...] = ("card", "refund"), **parts: object) -> None:
        """Versions, the first of which the champion points at."""
        made = [
            ModelVersion(
                name=self.settings.worker.model_name,
                version=name,
                uri=f"file:///nowhere/{name}",
                sha256="0" * 64,
                size=1000,
                labels=labels,
                created_at_ms=1_764_000_000_000 + place,
                **parts,
            )
            for place, name in enumerate(names)
        ]
        await self.publish(
            *made,
            ModelAlias(
                name=made[0].name, alias="champion", version=names[0], moved_at_ms=1_764_000_000_000, reason="the first"
            ),
        )

    async def real_versions(self, folder: Path, *rows: int) -> list[Artifact]:
        """Versions with artifacts that can be opened; the champion points at the first, the challenger at the last.

        They were trained from the labels topic when it was empty.
        """
        ends = tuple(OffsetRange(partition, 0, 0) for partition in range(PARTITIONS))
        artifacts = [
            desk_artifact(
                count,
                created_at_ms=1_764_000_000_000 + count,
                lineage=Lineage(source=self.names.labels, digest="d", rows=count, offsets=ends),
            )
            for count in rows
        ]
        name = self.settings.worker.model_name
        for artifact in artifacts:
            file = str(folder / f"{artifact.version}.safetensors")
            save(artifact, file)
            await self.publish(version_record(artifact, name=name, where=as_told(file), now_ms=0))
        first, last = artifacts[0].version, artifacts[-1].version
        await self.publish(
            ModelAlias(name=name, alias="champion", version=first, moved_at_ms=2, previous=last, reason="better"),
            ModelAlias(name=name, alias="challenger", version=last, moved_at_ms=3, reason="the gate refused it"),
        )
        return artifacts

    async def labels(self) -> dict[str, LabelledText | None]:
        """What lies on the labels topic, the last of each id; None is a tombstone."""
        found: dict[str, LabelledText | None] = {}
        async for record in read_topic(self.cluster, self.names.labels, "labels"):
            found[(record.key or b"").decode()] = decode_label(record.value)
        return found

    async def values(self, topic: str) -> list[bytes | None]:
        return [record.value async for record in read_topic(self.cluster, topic, "records")]

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[str]:
        """The topics are there, and the console is served; its address."""
        await self.create_topics()
        async with self.console, self.served() as address:
            yield address

    @contextlib.asynccontextmanager
    async def served(self) -> AsyncIterator[str]:
        """Serve the console, on the same port as before."""
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", self.port))
        self.port = listening.getsockname()[1]
        app = Starlette(routes=self.console.routes())
        config = uvicorn.Config(
            app, log_level="critical", lifespan="off", timeout_graceful_shutdown=1, timeout_keep_alive=1
        )
        server = _Server(config)
        serving = asyncio.create_task(server.serve([listening]))
        try:
            yield f"http://127.0.0.1:{self.port}/console/"
        finally:
            server.should_exit = True
            await serving
            listening.close()


class _Server(uvicorn.Server):
    """Without handlers of signals, which are the test runner's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
