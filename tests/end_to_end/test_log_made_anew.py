"""The client beside a real broker that comes back without its log: the embedded one keeps everything in memory."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from headrace.kafka.brokers.embedded import embedded_process
from headrace.kafka.brokers.process import wait_until_ready

from headrace.client import AnswerLogError, Client
from headrace.kafka.interface import UnknownTopicError
from headrace_schemas.records import Status
from tests.support.answered_site import Site
from tests.support.waiting import within

LIMIT_S = 60.0


@asynccontextmanager
async def answering(site: Site) -> AsyncIterator[None]:
    await site.create_topics()
    task = asyncio.create_task(site.answer())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("created", [False, True])
async def test_after_a_broker_came_back_without_its_log_calls_and_readers_say_so(created: bool) -> None:
    async with embedded_process() as (bootstrap, process), within(3 * LIMIT_S, "both logs"):
        site = Site(bootstrap, idempotent=False)
        async with Client(site.cluster, requests=site.requests, results=site.results) as client:
            async with answering(site), client.reader("earliest") as reader:
                for number in range(8):
                    assert (await client.classify(f"text {number}", timeout=LIMIT_S)).status is Status.OK
                read = 0
                while read < 8:
                    read += len(await reader.read())

                await process.end(signal.SIGKILL)
                process.start()
                await wait_until_ready(bootstrap, 1, [process], LIMIT_S)
                if created:
                    await site.create_topics()
                with pytest.raises(AnswerLogError, match=rf"{site.results}.*(cut or made anew|any more)"):  # noqa: PT012
                    while True:
                        await reader.read()
            with pytest.raises((AnswerLogError, UnknownTopicError)) as said:
                await client.classify("of the new log", timeout=20)
            assert f"{site.prefix}classify." in str(said.value)
            assert "worker answering" not in str(said.value)
            if created:
                # The topics are there; who answers has to begin anew, and the next call does.
                task = asyncio.create_task(site.answer())
                assert (await client.classify("again", timeout=LIMIT_S)).status is Status.OK
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
