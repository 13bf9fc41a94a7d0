"""The real gateways and a real worker: two behind a proxy, one of which is killed; one that is asked to stop."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest

from headrace_load.processes import running
from tests.support.http_calls import Calls, round_robin
from tests.support.log_audit import audit
from tests.support.own_topics import LIMIT_S, OwnTopics
from tests.support.random_versions import text
from tests.support.streams import answered
from tests.support.waiting import until


class Started:
    """A gateway's process, the address where it listens, and the port of its metrics."""

    def __init__(self, child: Any, address: str, admin: str) -> None:
        self.child = child
        self.url = httpx.URL(address)
        self.admin = int(admin)

    async def waiting(self) -> int:
        """How many texts wait there for their answers."""
        async with httpx.AsyncClient(timeout=LIMIT_S) as http:
            metrics = (await http.get(f"http://127.0.0.1:{self.admin}/metrics")).text
        found = re.search(r"^headrace_gateway_waiting_texts (\S+)$", metrics, re.MULTILINE)
        return int(float(found[1])) if found else 0


@asynccontextmanager
async def gateway(place: OwnTopics, name: str, *more: str) -> AsyncIterator[Started]:
    log = place.log.with_name(f"{name}.log")
    command = (*place.at, *more, "gateway", "--no-keys", "--port", "0", "--group", f"{place.prefix}gateways")
    async with running(*command, log=log) as child:
        found = await until(lambda: re.search(r"gateway\.listening address=(\S+)", log.read_text()), LIMIT_S)
        admin = re.search(r"admin\.listening .*port=(\d+)", log.read_text())
        assert admin is not None
        yield Started(child, found[1], admin[1])


async def test_of_two_gateways_one_is_killed_and_what_was_accepted_is_answered_or_known_by_its_id(place):
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(place.worker())
        first = await stack.enter_async_context(gateway(place, "first"))
        second = await stack.enter_async_context(gateway(place, "second"))
        calls = Calls(await stack.enter_async_context(round_robin([first.url, second.url])))
        await stack.enter_async_context(calls.http)
        await calls.call(0)
        work = [asyncio.create_task(calls.call(number)) for number in range(1, 200)]
        await until(lambda: len(calls.answers) > 160, LIMIT_S)
        await first.child.kill()
        await asyncio.gather(*work)
        assert calls.silent < 80
        assert calls.statuses <= {200, 202}
        client = await stack.enter_async_context(place.client())
        await calls.check(client)
        # The one that is left goes on.
        assert (await calls.http.post("/v1/classify", json="a text")).status_code == 200


@pytest.mark.parametrize("place", [pytest.param("apache", marks=pytest.mark.apache)], indirect=True)
async def test_a_gateway_that_is_asked_to_stop_leaves_nobody_without_an_answer_or_a_place(place):
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(gateway(place, "first", "--set", "gateway.drain=1"))
        second = await stack.enter_async_context(gateway(place, "second"))
        calls = Calls(await stack.enter_async_context(round_robin([first.url, second.url])))
        await stack.enter_async_context(calls.http)
        # Nobody answers yet, so all of them wait.
        work = [asyncio.create_task(calls.call(number)) for number in range(0, 120, 2)]
        gateways = (first, second)

        async def all_wait() -> bool:
            return sum([await one.waiting() for one in gateways]) == 240

        await until(all_wait, LIMIT_S)
        await first.child.stop()
        assert first.child.process.returncode == 0
        await stack.enter_async_context(place.worker())
        await asyncio.gather(*work)
        assert (calls.silent, calls.statuses) == (0, {200, 503})
        assert len(calls.answers) == 240
        client = await stack.enter_async_context(place.client())
        await calls.check(client)


@pytest.mark.parametrize("place", [pytest.param("apache", marks=pytest.mark.apache)], indirect=True)
async def test_a_published_stream_beside_the_gateway_is_answered_whole(place):
    async with place.client() as client, place.worker(), gateway(place, "first") as first:
        published = await client.publish_many(text(number) for number in range(2_000))
        async with httpx.AsyncClient(base_url=first.url, timeout=60) as http:
            reply = await http.post("/v1/classify", json=[text(number) for number in range(500)])
        assert {one["status"] for one in reply.json()["answers"]} == {"ok"}
        await answered(client, 2_500)
        found = await audit(client, published)
    assert found.kept, found.line()
