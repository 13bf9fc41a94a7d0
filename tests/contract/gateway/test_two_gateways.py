"""Two gateways behind a proxy, one of which is cut off: what was accepted is answered, or known by its id."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress

import httpx
import pytest

from headrace.client import connect
from tests.support.gateways import GatewaySite, RunningGateway
from tests.support.http_calls import Calls, round_robin
from tests.support.waiting import until

LIMIT_S = 60.0


async def cut_off(gateway: RunningGateway) -> None:
    """End a gateway as a kill does for its callers: connections break, and nothing is told."""
    gateway.cut_off = True
    server = gateway.gateway._server
    assert server is not None
    for listening in server.servers:
        listening.close()
    for connection in list(server.server_state.connections):
        connection.transport.abort()
    gateway.task.cancel()
    with suppress(asyncio.CancelledError):
        await gateway.task


@pytest.mark.slow
async def test_of_two_gateways_one_is_cut_off_and_what_was_accepted_is_answered_or_known(site: GatewaySite) -> None:
    async with AsyncExitStack() as stack:
        first, second = [await stack.enter_async_context(site.gateway()) for _ in range(2)]
        await until(lambda: len(first.gateway.owned) == len(second.gateway.owned) == 2, LIMIT_S)
        calls = Calls(
            await stack.enter_async_context(round_robin([httpx.URL(first.address), httpx.URL(second.address)]))
        )
        await stack.enter_async_context(calls.http)
        work = [asyncio.create_task(calls.call(number)) for number in range(300)]
        await until(lambda: len(calls.answers) > 200, LIMIT_S)
        await cut_off(first)
        await asyncio.gather(*work)
        assert calls.statuses <= {200, 202}
        assert 0 < len(calls.answers) <= 1200
        assert calls.silent < 200
        client = await stack.enter_async_context(
            connect(kafka=site.cluster.settings, requests=site.names.requests, results=site.names.results)
        )
        await calls.check(client)
        # The one that is left gets all partitions, and goes on.
        await until(lambda: len(second.gateway.owned) == 4, LIMIT_S)
        assert (await calls.http.post("/v1/classify", json="a text")).status_code == 200


async def test_calls_that_wait_while_the_group_divides_anew_are_answered(site: GatewaySite) -> None:
    async with site.gateway() as first:
        await until(lambda: len(first.gateway.owned) == 4, LIMIT_S)
        site.answering.clear()
        waiting = [
            asyncio.create_task(first.classify([f"text {number} {at}" for at in range(8)])) for number in range(20)
        ]
        await until(lambda: first.gateway._waiting == 160, LIMIT_S)
        async with site.gateway() as second:
            await until(lambda: len(first.gateway.owned) == len(second.gateway.owned) == 2, LIMIT_S)
            site.answering.set()
            replies = await asyncio.gather(*waiting)
        assert {reply.status_code for reply in replies} == {200}
        places = [one["place"] for reply in replies for one in reply.json()["answers"]]
        assert len(set(places)) == 160
