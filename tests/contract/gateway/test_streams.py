"""Answers as server-sent events: each once, in order, over reconnects, and to their tenant alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.answer_log import Place
from headrace.gateway import streams
from headrace.gateway.access import ANYBODY
from headrace.gateway.streams import read_id, write_id
from headrace.kafka.interface import connected
from headrace.registry.compacted_topics import KeysWriter
from tests.support.gateways import GatewaySite, RunningGateway
from tests.support.waiting import until, within

LIMIT_S = 60.0


class Events:
    """The answers of one stream, and its last id."""

    def __init__(self) -> None:
        self.answers: list[dict[str, Any]] = []
        self.last = ""


@asynccontextmanager
async def events(gateway: RunningGateway, query: str = "", **headers: str) -> AsyncIterator[Events]:
    found = Events()
    connected = asyncio.Event()

    async def read() -> None:
        async with gateway.http.stream("GET", f"/v1/answers{query}", headers=headers, timeout=None) as reply:
            assert reply.status_code == 200, await reply.aread()
            assert reply.headers["content-type"].startswith("text/event-stream")
            async for line in reply.aiter_lines():
                name, _, value = line.partition(": ")
                connected.set()
                if name == "id":
                    found.last = value
                elif name == "data":
                    found.answers.append(json.loads(value))

    task = asyncio.create_task(read())
    async with within(LIMIT_S, "the beginning of a stream"):
        await asyncio.wait([task, asyncio.create_task(connected.wait())], return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
    try:
        yield found
    finally:
        task.cancel()
        await asyncio.wait([task])


async def ask(gateway: RunningGateway, first: int, count: int, **headers: str) -> None:
    texts = [{"text": f"text {number}", "id": str(number)} for number in range(first, first + count)]
    assert (await gateway.classify(texts, headers=headers)).status_code == 200


async def test_a_stream_goes_on_behind_its_last_id_without_repeats_or_holes_at_any_gateway(site: GatewaySite) -> None:
    async with site.gateway() as first, site.gateway() as second:
        seen: list[str] = []
        last = ""
        for turn in range(4):
            gateway = (first, second)[turn % 2]
            async with events(gateway, **({"last-event-id": last} if last else {})) as found:
                # Some come while a stream is connected, some while none is.
                await ask(second, turn * 40, 20)
                wanted = 20 if turn == 0 else 40
                await until(lambda found=found, wanted=wanted: len(found.answers) >= wanted, LIMIT_S)
                seen += [one["id"] for one in found.answers]
                last = found.last
            await ask(first, turn * 40 + 20, 20)
        assert len(seen) == len(set(seen)) == 140
        assert set(seen) == {str(number) for number in range(140)}


async def test_a_stream_from_the_beginning_catches_up_and_goes_on(site: GatewaySite) -> None:
    async with site.gateway() as gateway:
        await ask(gateway, 0, 300)
        async with events(gateway, "?from=earliest") as found:
            await ask(gateway, 300, 50)
            await until(lambda: len(found.answers) >= 350, LIMIT_S)
            ids = [one["id"] for one in found.answers]
        assert sorted(map(int, ids)) == list(range(350))
        bad = await gateway.http.get("/v1/answers?from=yesterday")
        assert (bad.status_code, bad.json()["field"]) == (422, "from")
        bad = await gateway.http.get("/v1/answers", headers={"last-event-id": "rubbish"})
        assert (bad.status_code, bad.json()["field"]) == (422, "Last-Event-ID")
        cut = await gateway.http.get("/v1/answers", headers={"last-event-id": "0:99999999:5"})
        assert cut.status_code == 410


async def test_a_stream_has_the_answers_of_its_tenant_alone_and_ends_with_the_gateway(site: GatewaySite) -> None:
    async with site.gateway(keys=True) as gateway:
        shop, other = [await site.add_key(tenant=tenant) for tenant in ("shop", "other")]
        await gateway.known(shop, other)
        mine = {"authorization": f"Bearer {shop}"}
        async with events(gateway, **mine) as found:
            await ask(gateway, 0, 5, authorization=f"Bearer {other}")
            await ask(gateway, 5, 5, **mine)
            await until(lambda: len(found.answers) >= 5, LIMIT_S)
            assert {one["id"] for one in found.answers} == {"5", "6", "7", "8", "9"}
            assert gateway.gateway.streams.count == 1
            last = found.last
        async with events(gateway, **{"last-event-id": last}, **mine) as found:
            await ask(gateway, 20, 2, **mine)
            await until(lambda: len(found.answers) >= 2, LIMIT_S)
            assert {one["id"] for one in found.answers} == {"20", "21"}
            gateway.stop.set()
            await until(lambda: gateway.gateway.streams.count == 0, LIMIT_S)


async def test_a_stream_of_a_key_that_is_revoked_ends(site: GatewaySite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "PING_S", 0.2)
    async with site.gateway(keys=True) as gateway:
        token = await site.add_key()
        await until(lambda: gateway.gateway._keys.keys)
        async with events(gateway, authorization=f"Bearer {token}"):
            await until(lambda: gateway.gateway.streams.count == 1, LIMIT_S)
            [record] = gateway.gateway._keys.keys.values()
            async with connected(site.cluster.producer()) as producer:
                revoked = msgspec.structs.replace(record, revoked_at_ms=1)
                await KeysWriter(producer, site.names.keys).publish([revoked])
            await until(lambda: gateway.gateway.streams.count == 0, LIMIT_S)


def test_a_stream_that_does_not_keep_up_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MOST_QUEUED", 3)
    listener = streams.Listener(ANYBODY)
    listener.take(streams.Chunk([None] * 3, {}))  # type: ignore[list-item]
    assert listener.ended is None
    listener.take(streams.Chunk([None], {}))  # type: ignore[list-item]
    assert listener.ended is not None


places = st.dictionaries(
    st.integers(0, 999_999),
    st.builds(Place, st.integers(0, 10**18 - 1), st.none() | st.integers(0, 10**18 - 1)),
    min_size=1,
)


@given(places)
def test_an_id_comes_back_as_it_was(places: dict[int, Place]) -> None:
    assert read_id(write_id(places)) == places


@given(st.text())
def test_rubbish_is_no_id_or_one_that_is_written_again(text: str) -> None:
    found = read_id(text)
    assert found is None or read_id(write_id(found)) == found
