"""One run of `headrace demo --learning` on Apache Kafka, which several tests look at from outside."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import msgspec

from headrace.client import Client, connect
from headrace.kafka.aio import AioKafkaCluster
from headrace.kafka.interface import Cluster, Record, TopicPartition
from headrace.kafka.settings import KafkaSettings
from headrace.registry.compacted_topics import ModelsLog, Move, alias_moves
from headrace_load.processes import slowness
from headrace_schemas.records import ModelVersion
from tests.support.demos import COLUMNS, write_texts
from tests.support.started_processes import StartedProcesses

TEXTS = 400
RATE, SECONDS = 40, 1.5
"""Texts a second, and how long each version answers before the next step: no more than the swaps need to be seen."""
LIMIT_S = 400.0


class Learnt(msgspec.Struct, frozen=True, kw_only=True):
    """What the run left behind. ``left`` are processes that outlived it, ``files`` temporary files that did."""

    bootstrap: str
    prefix: str
    code: int
    printed: str
    left: dict[int, str]
    files: list[Path]

    @property
    def cluster(self) -> Cluster:
        return AioKafkaCluster(KafkaSettings(bootstrap=self.bootstrap))

    def client(self) -> Client:
        return connect(self.bootstrap, requests=self.topic("requests"), results=self.topic("results"))

    def topic(self, name: str) -> str:
        return f"{self.prefix}classify.{name}"

    async def models(self) -> ModelsLog:
        """The models topic, read to its end."""
        log = ModelsLog(self.cluster, self.topic("models"))
        await log.start()
        await log.stop()
        return log

    async def moves(self) -> list[Move]:
        """The moves of the champion, oldest first."""
        moves = await alias_moves(self.cluster, self.topic("models"), "default")
        return [move for move in moves if move.alias.alias == "champion"]

    async def versions(self) -> tuple[ModelVersion, ModelVersion]:
        """The first and the second."""
        first, second = sorted((await self.models()).versions.values(), key=lambda one: one.created_at_ms)
        return first, second

    async def records(self, name: str) -> list[Record]:
        """Everything on the topic, by partition and offset."""
        consumer = self.cluster.consumer()
        await consumer.start()
        try:
            numbers = await consumer.partitions_of(self.topic(name))
            partitions = [TopicPartition(self.topic(name), number) for number in sorted(numbers)]
            ends = await consumer.end_offsets(partitions)
            consumer.assign(partitions)
            for partition in partitions:
                consumer.seek(partition, 0)
            found: list[Record] = []
            while any([await consumer.position(partition) < ends[partition] for partition in partitions]):
                for chunk in (await consumer.fetch(max_records=5000, timeout_s=0.5)).values():
                    found += chunk
        finally:
            await consumer.stop()
        return sorted(found, key=lambda record: (record.partition, record.offset))


def learn(bootstrap: str, folder: Path) -> Learnt:
    """Run the demo on the cluster at ``bootstrap``, with a small data set, to its end."""
    data, mark = folder / "texts.jsonl", StartedProcesses()
    write_texts(data, TEXTS)
    (folder / "temporary").mkdir()
    done = subprocess.run(
        [
            *(sys.executable, "-m", "headrace", "demo", "--learning", "--bootstrap", bootstrap),
            *("--data", str(data), *COLUMNS, "--seconds", str(SECONDS), "--rate", str(RATE)),
        ],
        env=mark.environ(XDG_CACHE_HOME=str(folder / "cache"), TMPDIR=str(folder / "temporary")),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=LIMIT_S * slowness(),
    )
    prefix = re.search(r"topics (demo-[0-9a-f]{6}-)classify", done.stdout)
    assert prefix, done.stdout
    return Learnt(
        bootstrap=bootstrap,
        prefix=prefix[1],
        code=done.returncode,
        printed=done.stdout,
        left=mark.processes(),
        files=list((folder / "temporary").glob("headrace-*")),
    )
