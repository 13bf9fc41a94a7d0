"""The models commands on the twin, with artifacts in a folder."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from headrace import cli
from headrace.commands import common
from headrace.core.clock import SystemClock
from headrace.kafka.interface import Outgoing, TopicSpec
from headrace.model.artifact import About, Artifact, assemble, save
from headrace.model.quantizing import quantize
from headrace.registry.compacted_topics import ModelsLog, ModelsWriter
from headrace_schemas.records import ModelsRecord
from tests.support.memory_kafka import MemoryCluster
from tests.support.networks import random_network

MODELS = "classify.models"
WORKERS = "classify.workers"
NETWORK = quantize(random_network(1))


class Site:
    """A twin with the compacted topics, artifacts in a folder, and the command line on both."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.cluster = MemoryCluster(SystemClock())
        for name in (MODELS, WORKERS):
            self.cluster.create_topic(TopicSpec(name=name, partitions=1))
        monkeypatch.setattr(common, "cluster_of", lambda settings: self.cluster)
        monkeypatch.chdir(folder)
        # So what is published lies in the store already.
        monkeypatch.setenv("HEADRACE_TRAINER__STORE", str(folder))

    def run(self, *arguments: object) -> str:
        result = CliRunner().invoke(cli.app, ["models", *map(str, arguments)], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    def artifact(self, minute: int, **about: object) -> Artifact:
        """An artifact of that minute, in a file of its version's name."""
        artifact = assemble(NETWORK, About(created_at_ms=60_000 * minute, **about))
        save(artifact, str(self.folder / artifact.version))
        return artifact

    def publish(self, *records: ModelsRecord) -> None:
        async def write() -> None:
            await ModelsWriter(self.cluster.producer(), MODELS).publish(records)

        asyncio.run(write())

    def write(self, topic: str, records: Sequence[Outgoing]) -> None:
        self.cluster.create_topic(TopicSpec(name=topic, partitions=1))

        async def write() -> None:
            await self.cluster.producer().send_batch(topic, 0, records)

        asyncio.run(write())

    def log(self) -> ModelsLog:
        async def read() -> ModelsLog:
            log = ModelsLog(self.cluster, MODELS)
            await log.start()
            await log.stop()
            return log

        return asyncio.run(read())
