"""Faults under 500 waiting calls, each with an Idempotency-Key: the broker paused, the worker killed.

Callers do as they are told: they come again with the same key when `Retry-After` says so. In the end each text has one
request in the log and one answer, whatever each caller saw meanwhile. `pytest -s` shows the numbers.
"""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from headrace.kafka.brokers import apache_broker
from headrace.kafka.range_reader import read_topic
from headrace_load.processes import slowness
from headrace_schemas.codec import decode_request
from tests.end_to_end.test_gateway import Started, gateway
from tests.support.own_topics import LIMIT_S, OwnTopics
from tests.support.random_versions import random_version, text
from tests.support.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.apache]

CALLS = 500
DURING = 50
"""Calls that come while the broker is paused."""


class Callers:
    """What callers were told, by the number of their text."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http
        self.answers: dict[int, dict[str, Any]] = {}
        self.accepted: set[str] = set()
        self.told: Counter[str] = Counter()
        """How often callers got each reply."""

    async def call(self, number: int) -> None:
        body = {"text": f"{number} {text(number)}", "id": f"q-{number}", "timeout": 280}
        while number not in self.answers:
            try:
                reply = await self.http.post("/v1/classify", json=body, headers={"idempotency-key": f"call-{number}"})
            except httpx.TransportError:
                self.told["no reply"] += 1
                continue
            said = reply.json()
            self.told[f"{reply.status_code} {said.get('type', '').rpartition(':')[2]}".strip()] += 1
            for one in said.get("answers", [said]):
                if "place" in one:
                    self.accepted.add(one["place"])
            if reply.status_code == 200:
                self.answers[number] = said
            else:
                await asyncio.sleep(int(reply.headers["retry-after-ms"]) / 1000)

    async def check(self, place: OwnTopics, capsys: pytest.CaptureFixture[str], what: str) -> None:
        """Print the numbers; nothing is lost, and nothing was published or answered twice."""
        published: Counter[str] = Counter()
        async with place.client() as client, client.reader("beginning") as reader:
            cluster = client._cluster
            async for record in read_topic(cluster, f"{place.prefix}classify.requests", "requests"):
                published[decode_request(record.value).text] += 1
            seen: Counter[str] = Counter()
            while len(seen) < len(published):
                for answer in await reader.read():
                    seen[f"{answer.partition}@{answer.result.offset}"] += 1
        numbers = {
            "calls": len(self.answers),
            "accepted": len({one["place"] for one in self.answers.values()} | self.accepted),
            "answered": sum(one["status"] == "ok" for one in self.answers.values()),
            "known by place before": len(self.accepted),
            "lost": len(self.answers) - len(published),
            "published twice": sum(count > 1 for count in published.values()),
            "answered twice": sum(count > 1 for count in seen.values()),
        }
        with capsys.disabled():
            print(f"\n{what}: {numbers}, replies {dict(self.told)}")  # noqa: T201 - the numbers are asked for
        assert numbers["answered"] == numbers["calls"] == len(published) == len(seen), numbers
        assert numbers["lost"] == numbers["published twice"] == numbers["answered twice"] == 0, numbers


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[tuple[Any, OwnTopics]]:
    model = tmp_path / "random.safetensors"
    random_version(3, model)
    async with apache_broker(log_dir=tmp_path / "kafka") as brokers:
        place = OwnTopics(brokers.bootstrap, model, tmp_path, embedded=False)
        place.apply()
        yield brokers, place


def callers_of(started: Started) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=CALLS + DURING, max_keepalive_connections=CALLS)
    return httpx.AsyncClient(base_url=started.url, timeout=300 * slowness(), limits=limits)


async def test_a_paused_broker_loses_and_doubles_nothing_of_500_waiting_calls(
    site: tuple[Any, OwnTopics], capsys: pytest.CaptureFixture[str]
) -> None:
    brokers, place = site
    async with AsyncExitStack() as stack:
        worker = await stack.enter_async_context(place.worker())
        await place.logged(r"worker\.assigned|partitions")
        started = await stack.enter_async_context(gateway(place, "first", "--set", "kafka.away_after_ms=3000"))
        callers = Callers(await stack.enter_async_context(callers_of(started)))
        # Frozen, so that all of them wait when the broker stops.
        worker.process.send_signal(signal.SIGSTOP)
        work = [asyncio.create_task(callers.call(number)) for number in range(CALLS)]

        async def all_wait() -> bool:
            return await started.waiting() == CALLS

        await until(all_wait, LIMIT_S)
        brokers.pause(0)
        try:
            work += [asyncio.create_task(callers.call(CALLS + number)) for number in range(DURING)]

            async def away() -> bool:
                return (await callers.http.get("/readyz")).status_code == 503

            await until(away, LIMIT_S)
        finally:
            brokers.resume(0)
            worker.process.send_signal(signal.SIGCONT)
        await asyncio.gather(*work)
        await callers.check(place, capsys, "broker paused")


async def test_a_killed_worker_loses_and_doubles_nothing_of_500_waiting_calls(
    site: tuple[Any, OwnTopics], capsys: pytest.CaptureFixture[str]
) -> None:
    _, place = site
    async with AsyncExitStack() as stack:
        worker = await stack.enter_async_context(place.worker())
        started = await stack.enter_async_context(gateway(place, "first"))
        callers = Callers(await stack.enter_async_context(callers_of(started)))
        await callers.call(0)
        worker.process.send_signal(signal.SIGSTOP)
        work = [asyncio.create_task(callers.call(number)) for number in range(1, CALLS)]

        async def all_wait() -> bool:
            return await started.waiting() == CALLS - 1

        await until(all_wait, LIMIT_S)
        # It goes on among them, and dies when some are answered.
        worker.process.send_signal(signal.SIGCONT)
        await until(lambda: len(callers.answers) > 1, LIMIT_S)
        await worker.kill()
        await stack.enter_async_context(place.worker())
        await asyncio.gather(*work)
        await callers.check(place, capsys, "worker killed")
