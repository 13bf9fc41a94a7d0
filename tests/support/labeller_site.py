"""The real labeller beside the real worker, with a teacher that is a server on this machine, under a stream.

:class:`Figures` are what a run came to: requests answered meanwhile and how long they waited, texts that the teacher
was paid for twice, labels, and what was reserved beside what was settled.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import numpy as np

from headrace.client import Client, Published
from headrace.core.spending import day_of, spent
from headrace.demo.chat_server import ChatServer, Fault
from headrace.kafka.aio import AioKafkaCluster
from headrace.kafka.range_reader import read_topic
from headrace.process.ports import free_ports
from headrace_load.processes import running
from headrace_schemas.codec import decode_machine_label, decode_teaching_record
from headrace_schemas.records import Spending
from tests.support.log_audit import audit
from tests.support.own_topics import LIMIT_S, OwnTopics
from tests.support.random_versions import random_version, text
from tests.support.streams import publish_steadily, waits
from tests.support.waiting import until

RATE = 40.0
BATCH = 16
STREAM_WAITS_MS = 600_000
LABELS = ("label 0", "label 1", "label 2")


def classify(texts, labels):
    """Scores that depend on the text alone."""
    scores = np.full((len(texts), len(labels)), 0.1)
    for row, one in enumerate(texts):
        scores[row, len(one) % len(labels)] = 0.8
    return scores


class Figures(msgspec.Struct, frozen=True):
    """What a run came to; waits in milliseconds."""

    requests: int
    p50: float
    p99: float
    labelled: int
    asked: int
    twice: int
    reserved: int
    settled: int


class Site:
    """A worker, a teacher that is a server on this machine, and labellers beside the stream of requests."""

    def __init__(self, bootstrap: str, folder: Path, *, embedded: bool = False, **teacher) -> None:
        model = folder / "random.safetensors"
        random_version(3, model)
        self.place = OwnTopics(bootstrap, model, folder, embedded=embedded)
        self.place.apply()
        # A broker takes as long to come back as the machine is loaded; the stream waits for it.
        self.place.kafka = msgspec.structs.replace(self.place.kafka, delivery_timeout_ms=STREAM_WAITS_MS)
        self.folder = folder
        self.begun: list[int] = []
        self.labellers: list[str] = []
        self.faults = teacher.pop("faults", lambda _: None)
        self.server = ChatServer(classify, faults=self._fault, slow_s=teacher.pop("slow_s", 3.0), **teacher)
        (self.port,) = free_ports(1)
        (folder / "labels.toml").write_text("".join(f'[labels."{label}"]\n' for label in LABELS))

    def _fault(self, number: int) -> Fault | None:
        self.begun.append(number)
        return self.faults(number)

    def log(self, name: str) -> str:
        file = self.folder / f"{name}.log"
        return file.read_text() if file.exists() else ""

    def labeller(self, name: str, **changed):
        self.labellers.append(name)
        sets = {
            "labeller.group": f"{self.place.prefix}labeller",
            "labeller.random": 1.0,
            "labeller.batch": BATCH,
            "labeller.gold": 0.0,
            "labeller.tries": 100,
            "labeller.longest_wait": 1.0,
            "labeller.waiting": 10_000,
            "teacher.texts_a_call": 4,
            "teacher.attempts": 1,
        } | changed
        return running(
            *self.place.at,
            *(part for key, value in sets.items() for part in ("--set", f"{key}={value}")),
            "labeller",
            "--teacher",
            f"endpoint:http://127.0.0.1:{self.port}/v1",
            "--labels",
            str(self.folder / "labels.toml"),
            "--model",
            "made-up",
            "--may-leave",
            f"{self.place.prefix}classify.requests:text",
            log=self.folder / f"{name}.log",
        )

    async def leads(self, name: str) -> None:
        await until(lambda: re.search(r"labeller\.follows", self.log(name)), LIMIT_S)

    def leading(self, name: str) -> bool:
        """Whether a labeller leads, by the last that it said."""
        return re.findall(r"labeller\.(leads|lost|stands_by)", self.log(name))[-1:] == ["leads"]

    def lost(self, name: str) -> int:
        """How often a labeller said that another may lead."""
        return self.log(name).count("labeller.lost")

    @property
    def cluster(self) -> AioKafkaCluster:
        return AioKafkaCluster(self.place.kafka)

    async def labelled(self) -> set[str]:
        topic = f"{self.place.prefix}classify.machine-labels"
        records = [decode_machine_label(one.value) async for one in read_topic(self.cluster, topic, "labels")]
        return {one.text for one in records if one.label is not None}

    async def spending(self) -> tuple[int, int]:
        last: dict[bytes, Spending] = {}
        async for record in read_topic(self.cluster, f"{self.place.prefix}classify.teaching", "spendings"):
            if isinstance(one := decode_teaching_record(record.value), Spending):
                last[record.key] = one
        reserved = spent(last.values(), "default", day_of(int(time.time() * 1000))).texts
        return reserved, sum(one.settled_texts for one in last.values())

    @contextlib.asynccontextmanager
    async def stream(self) -> AsyncIterator[Stream]:
        """Requests come while the block runs, or until its stream is ended."""
        texts = [f"{text(number)} {number}" for number in range(20_000)]
        stop = asyncio.Event()
        # A labeller that starts for the first time begins with what comes from then on.
        if self.labellers:
            await until(lambda: any("labeller.follows" in self.log(name) for name in self.labellers), LIMIT_S)
        async with self.place.client() as client:
            sending = asyncio.create_task(publish_steadily(client, texts, rate=RATE, stop=stop))
            try:
                yield Stream(self, client, sending, stop)
            finally:
                stop.set()
                await sending


class Stream:
    """Requests that come to a site."""

    def __init__(self, site: Site, client: Client, sending: asyncio.Task, stop: asyncio.Event) -> None:
        self.site, self.client, self.sending, self.stop = site, client, sending, stop

    async def stopped(self) -> dict[Published, float]:
        """Let no more requests come; those that came, and when each was due."""
        self.stop.set()
        return await self.sending

    async def end(self, most: int | None = None, *, least: int = 0) -> Figures:
        """Let no more requests come, wait for the labels of all or of ``most``, and measure.

        ``least`` labels are waited for before that.
        """
        site = self.site

        async def labelled(count: int) -> bool:
            return len(await site.labelled()) >= count

        await until(lambda: labelled(least), 120.0)
        due = await self.stopped()
        await until(lambda: labelled(len(due) if most is None else most), 120.0)
        waited = [one.answered_ms - one.due_ms for one in await waits(self.client, due)]
        checked = await audit(self.client, list(due), quiet_s=2.0)
        assert checked.kept, checked.line()
        assert len(waited) == len(due)
        reserved, settled = await site.spending()
        asked = site.server.asked
        figures = Figures(
            requests=len(due),
            p50=round(float(np.percentile(waited, 50)), 1),
            p99=round(float(np.percentile(waited, 99)), 1),
            labelled=len(await site.labelled()),
            asked=len(asked),
            twice=sum(count - 1 for count in asked.values()),
            reserved=reserved,
            settled=settled,
        )
        sys.stderr.write(msgspec.json.encode(figures).decode() + "\n")
        return figures
