"""The real programs while their broker is killed by SIGKILL and started again on the same port."""

from __future__ import annotations

import asyncio
import math
import re
import signal
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from headrace.client import NoAnswerError
from headrace.kafka.brokers import apache_broker, embedded_process, wait_until_ready
from headrace_schemas.records import Status
from tests.support.own_topics import LIMIT_S, OwnTopics
from tests.support.random_versions import random_version, text
from tests.support.waiting import until

Act = Callable[[], Awaitable[None]]
AWAY_AFTER_S = 4
SAID_FIRST_S = 3.0
"""So long after the last answer the worker says for the first time that the broker is away."""


@asynccontextmanager
async def embedded(
    folder: Path,
) -> AsyncIterator[tuple[str, Act, Act]]:
    async with embedded_process() as (bootstrap, process):

        async def start() -> None:
            process.start()
            await wait_until_ready(bootstrap, 1, [process], LIMIT_S)

        yield bootstrap, lambda: process.end(signal.SIGKILL), start


@asynccontextmanager
async def apache(
    folder: Path,
) -> AsyncIterator[tuple[str, Act, Act]]:
    async with apache_broker(log_dir=folder / "kafka") as brokers:

        async def kill() -> None:
            brokers.kill(0)

        yield brokers.bootstrap, kill, lambda: brokers.start(0)


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=LIMIT_S) as reply:  # noqa: S310 - our own port
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


class Admin:
    """What the worker says on its admin port."""

    def __init__(self, port: str) -> None:
        self._port = port

    async def asked(self, path: str) -> tuple[int, str]:
        return await asyncio.to_thread(get, f"http://127.0.0.1:{self._port}{path}")

    async def unready(self, why: str) -> str | None:
        code, body = await self.asked("/readyz")
        return body if code == 503 and why in body else None

    async def ready(self) -> bool:
        return (await self.asked("/readyz"))[0] == 200

    async def lag_known(self) -> str | None:
        metrics = (await self.asked("/metrics"))[1]
        return metrics if "headrace_lag_records{" in metrics else None


@pytest.mark.slow  # a worker's start and a broker's return: minutes where the machine is loaded
@pytest.mark.parametrize("broker", [embedded, pytest.param(apache, marks=pytest.mark.apache)])
async def test_a_worker_says_that_its_broker_is_away_and_calls_survive_its_return(broker, tmp_path):
    model = tmp_path / "random.safetensors"
    random_version(3, model)
    async with broker(tmp_path) as (bootstrap, kill, start):
        place = OwnTopics(bootstrap, model, tmp_path, embedded=broker is embedded)
        place.apply()
        place.command = ("--set", f"kafka.away_after_ms={AWAY_AFTER_S * 1000}", *place.command)
        async with place.worker(), AsyncExitStack() as stack:
            client = await stack.enter_async_context(place.client())
            admin = Admin((await place.logged(r"admin\.listening host=127\.0\.0\.1 port=(\d+)"))[1])
            await client.classify(text(1), timeout=5 * LIMIT_S)
            assert "headrace_broker_connected 1.0" in await until(admin.lag_known, LIMIT_S)

            log = ""
            await kill()
            # The broker may come back without its topics, so some have little time and some enough.
            calls = [asyncio.create_task(client.classify(text(2), timeout=2)) for _ in range(5)]
            calls += [asyncio.create_task(client.classify(text(3), timeout=5 * LIMIT_S)) for _ in range(20)]
            assert f"Kafka at {bootstrap} has not answered for" in await until(
                lambda: admin.unready("lag unknown"), LIMIT_S
            )
            assert (await admin.asked("/healthz"))[0] == 200
            metrics = (await admin.asked("/metrics"))[1]
            assert "headrace_broker_connected 0.0" in metrics
            assert not re.search(r"^headrace_lag_records", metrics, re.MULTILINE)
            for call in calls[:5]:
                with pytest.raises(NoAnswerError, match=rf"Kafka at {bootstrap} is away"):
                    await call

            await start()
            back = await place.logged(r"broker\.back .*away_s=(\d+)")
            if broker is embedded:
                # It keeps everything in memory, so topics and requests are gone, as before a restore.
                for call in calls[5:]:
                    call.cancel()
                await place.logged(r"topics\.missing .*classify\.workers")
                await place.logged(r"worker\.waits")
                await until(lambda: admin.unready("missing topics"), LIMIT_S)
                assert (await admin.asked("/healthz"))[0] == 200
                # This broker creates a topic that somebody asks for. Begun once more, it has none again.
                await stack.aclose()
                log = place.log.read_text()
                await kill()
                await start()
                place.apply()
                await until(admin.ready, 3 * LIMIT_S)
                async with place.client() as again:
                    assert (await again.classify(text(4), timeout=5 * LIMIT_S)).status is Status.OK
            else:
                assert {result.status for result in await asyncio.gather(*calls[5:])} == {Status.OK}
                await until(admin.ready, LIMIT_S)
            assert "headrace_broker_connected 1.0" in (await admin.asked("/metrics"))[1]
        log = log or place.log.read_text()
    said = log.count("warning broker.away")
    assert 1 <= said <= 1 + max(0, math.log2(int(back[1]) / SAID_FIRST_S))
    assert log.count("broker.back") == 1
    assert log.count("warning worker.waits") == (broker is embedded)
