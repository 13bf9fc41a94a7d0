"""The client beside a real broker that comes back without its log: the embedded one keeps everything in memory."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from headrace.client import AnswerLogError, AnswerReader, Client
from headrace.kafka.brokers import embedded_process, wait_until_ready
from headrace.kafka.interface import BrokerUnavailableError
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


async def until_it_ends(reader: AnswerReader) -> None:
    while True:
        try:
            await reader.read()
        except BrokerUnavailableError:  # it has only just come back
            continue


@pytest.mark.parametrize("created", [False, True])
async def test_after_a_broker_came_back_without_its_log_calls_and_readers_say_so(created: bool) -> None:
    async with embedded_process() as (bootstrap, process), within(3 * LIMIT_S, "both logs"):
        site = Site(bootstrap, idempotent=False)
        async with (
            Client(site.cluster, requests=site.requests, results=site.results) as client,
            AsyncExitStack() as opened,
        ):
            async with answering(site):
                reader = await opened.enter_async_context(client.reader("earliest"))
                for number in range(8):
                    assert (await client.classify(f"text {number}", timeout=LIMIT_S)).status is Status.OK
                read = 0
                while read < 8:
                    read += len(await reader.read())
            waiting = asyncio.create_task(client.classify("nobody answers", timeout=LIMIT_S))

            await process.end(signal.SIGKILL)
            process.start()
            await wait_until_ready(bootstrap, 1, [process], LIMIT_S)
            if created:
                await site.create_topics()
            with pytest.raises(AnswerLogError, match=rf"{site.prefix}classify.*(cut or made anew|any more)"):
                await waiting
            with pytest.raises(AnswerLogError, match=rf"{site.results}.*(cut or made anew|any more)"):
                await until_it_ends(reader)
            if created:
                # Who answers has to begin anew, and the next call does.
                task = asyncio.create_task(site.answer())
                assert (await client.classify("again", timeout=LIMIT_S)).status is Status.OK
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
