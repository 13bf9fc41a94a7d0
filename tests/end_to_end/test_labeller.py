"""The real labeller beside the real worker on Apache Kafka: killed, frozen, two at once, and with a bad teacher.

Each test measures the same: requests answered meanwhile and how long they waited, texts that the teacher was paid for
twice, labels that were lost, and what was reserved beside what was settled. `pytest -s` prints the line.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from headrace.client import Client
from headrace.core.spending import day_of, spent
from headrace.demo.chat_server import ChatServer, Fault, chat_server
from headrace.kafka.aio import AioKafkaCluster
from headrace.kafka.brokers import apache_broker
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
LABELS = ("label 0", "label 1", "label 2")
pytestmark = pytest.mark.apache


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

    def __init__(self, bootstrap: str, folder: Path, **teacher) -> None:
        model = folder / "random.safetensors"
        random_version(3, model)
        self.place = OwnTopics(bootstrap, model, folder, embedded=False)
        self.place.apply()
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

    async def end(self, most: int | None = None) -> Figures:
        """Let no more requests come, wait for the labels of all or of ``most``, and measure."""
        self.stop.set()
        due, site = await self.sending, self.site

        async def labelled() -> bool:
            return len(await site.labelled()) >= (len(due) if most is None else most)

        await until(labelled, 120.0)
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


def whole(figures: Figures, *, lost_calls: int = 0) -> None:
    """No label is lost, one batch at most is paid twice for each call that was lost, and the account says so."""
    assert figures.labelled == figures.requests
    assert figures.twice <= lost_calls * BATCH
    assert figures.settled == figures.labelled
    assert 0 <= figures.reserved - figures.settled <= lost_calls * BATCH


async def test_a_labeller_that_is_killed_in_a_call_loses_no_label_and_one_batch_at_most_is_paid_twice(
    apache_bootstrap, tmp_path
):
    site = Site(apache_bootstrap, tmp_path, faults=lambda n: Fault.SLOW if 8 <= n < 12 else None, slow_s=1.0)
    with chat_server(site.server, site.port):
        async with site.place.worker(), site.labeller("first") as first, site.stream() as stream:
            await until(lambda: len(site.begun) > 10, LIMIT_S)
            await first.kill()
            async with site.labeller("second"):
                await site.leads("second")
                whole(await stream.end(), lost_calls=1)


@pytest.mark.slow
async def test_a_frozen_labeller_writes_nothing_when_it_goes_on_after_another_took_over(apache_bootstrap, tmp_path):
    site = Site(apache_bootstrap, tmp_path, faults=lambda n: Fault.SLOW if 8 <= n < 12 else None, slow_s=1.0)
    with chat_server(site.server, site.port):
        async with (
            site.place.worker(),
            site.labeller("first") as first,
            site.labeller("second") as second,
            site.stream() as stream,
        ):
            await until(lambda: len(site.begun) > 10, LIMIT_S)
            leader = await until(lambda: next((name for name in site.labellers if site.leading(name)), None), LIMIT_S)
            (other,) = {"first", "second"} - {leader}
            frozen, terms = {"first": first, "second": second}[leader], site.log(other).count("labeller.leads")
            os.kill(frozen.pid, signal.SIGSTOP)
            try:
                await until(lambda: site.log(other).count("labeller.leads") > terms, LIMIT_S)
            finally:
                os.kill(frozen.pid, signal.SIGCONT)
            await until(lambda: not site.leading(leader), LIMIT_S)
            # The group may have moved the seat as the second one joined, too.
            whole(await stream.end(), lost_calls=2)


@pytest.mark.slow
async def test_of_two_labellers_at_once_one_asks(apache_bootstrap, tmp_path):
    site = Site(apache_bootstrap, tmp_path)
    with chat_server(site.server, site.port):
        async with site.place.worker(), site.labeller("first"), site.labeller("second"), site.stream() as stream:
            await until(lambda: len(site.begun) > 60, LIMIT_S)
            # The group may have moved the seat as the second one joined.
            whole(await stream.end(), lost_calls=1)
            assert sum(site.leading(name) for name in site.labellers) == 1


@pytest.mark.slow
async def test_an_endpoint_that_is_down_delays_labels_alone(apache_bootstrap, tmp_path):
    site = Site(apache_bootstrap, tmp_path)
    async with site.place.worker(), site.labeller("first"), site.stream() as stream:
        await until(lambda: len(re.findall(r"teacher\.failed", site.log("first"))) > 3, LIMIT_S)
        assert await site.spending() == (0, 0)
        with chat_server(site.server, site.port):
            whole(await stream.end())


BAD = {
    "slow": {"faults": lambda _: Fault.SLOW, "slow_s": 0.3},
    "rate-limited": {"a_second": 10.0},
    "every-third-call-fails": {"faults": lambda n: (Fault.ERROR, Fault.MALFORMED, None)[n % 3] if n % 3 == 0 else None},
    "plain": {},
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", BAD)
async def test_a_bad_endpoint_delays_labels_alone(kind, apache_bootstrap, tmp_path):
    site = Site(apache_bootstrap, tmp_path, **BAD[kind])
    with chat_server(site.server, site.port):
        async with site.place.worker(), site.labeller("first"), site.stream() as stream:
            await until(lambda: len(site.begun) > 60, LIMIT_S)
            whole(await stream.end())


@pytest.mark.slow
async def test_out_of_budget_nothing_more_is_asked_and_requests_are_answered(apache_bootstrap, tmp_path):
    site = Site(apache_bootstrap, tmp_path)
    with chat_server(site.server, site.port):
        async with (
            site.place.worker(),
            site.labeller("first", **{"labeller.day_texts": 100}),
            site.stream() as stream,
        ):
            await until(lambda: re.search(r"labeller\.budget", site.log("first")), LIMIT_S)
            figures = await stream.end(most=100)
    assert (figures.labelled, figures.asked, figures.twice, figures.reserved, figures.settled) == (
        100,
        100,
        0,
        100,
        100,
    )


@pytest.mark.slow
async def test_without_a_labeller_requests_wait_as_long(apache_bootstrap, tmp_path):
    site = Site(apache_bootstrap, tmp_path)
    async with site.place.worker(), site.stream() as stream:
        await asyncio.sleep(10)
        await stream.end(most=0)


@pytest.mark.slow
async def test_a_broker_that_is_killed_and_comes_back_costs_no_label(tmp_path):
    async with apache_broker(log_dir=tmp_path / "kafka") as brokers:
        site = Site(brokers.bootstrap, tmp_path)
        with chat_server(site.server, site.port):
            async with site.place.worker(), site.labeller("first"), site.stream() as stream:
                await until(lambda: len(site.begun) > 10, LIMIT_S)
                brokers.kill(0)
                await brokers.start(0)
                await site.leads("first")
                whole(await stream.end(), lost_calls=1)
