"""Calls with an Idempotency-Key: the same answers from any gateway, published once, whichever gateway dies over it."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import pytest_asyncio

from headrace.gateway import idempotency
from headrace.gateway.sender import Queued
from headrace.kafka.interface import Outgoing, connected
from headrace.kafka.range_reader import read_topic
from headrace_schemas.codec import decode_request, encode_idempotent_call
from headrace_schemas.records import IdempotentCall
from tests.contract.gateway.test_two_gateways import cut_off
from tests.support.gateways import GatewaySite, RunningGateway, gateway_site
from tests.support.waiting import until

LIMIT_S = 60.0
Pair = tuple[GatewaySite, RunningGateway, RunningGateway]
fresh = map("key-{}".format, itertools.count())


@asynccontextmanager
async def two(bootstrap: str, **settings: Any) -> AsyncIterator[Pair]:
    async with (
        gateway_site(bootstrap, partitions=2) as site,
        site.gateway(**settings) as first,
        site.gateway(**settings) as second,
    ):
        yield site, first, second


def once(key: str) -> dict[str, Any]:
    return {"headers": {"idempotency-key": key}}


async def published(site: GatewaySite) -> list[str]:
    """The texts of all requests."""
    return [decode_request(one.value).text async for one in read_topic(site.cluster, site.names.requests, "requests")]


def lease(gateway: RunningGateway, seconds: float) -> None:
    gateway.gateway.idempotency._lease_s = seconds


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(embedded_bootstrap: str) -> AsyncIterator[Pair]:
    async with two(embedded_bootstrap) as pair:
        yield pair


async def test_the_same_key_gives_the_same_answers_from_any_gateway(pair: Pair) -> None:
    site, first, second = pair
    before = Counter(await published(site))  # other tests share the site
    one = await first.classify("a", **once(key := next(fresh)))
    assert "idempotent-replayed" not in one.headers
    for gateway in (first, second):
        again = await gateway.classify("a", **once(f'"{key}"'))
        assert (again.status_code, again.json()) == (200, one.json())
        assert again.headers["idempotent-replayed"] == "true"
    texts = [{"text": f"b{n}", "id": f"q-{n}", **({"key": f"k{n % 7}"} if n % 2 else {})} for n in range(300)]
    key = next(fresh)
    wanted = (await second.classify({"texts": texts}, **once(key))).json()
    assert (await first.classify({"texts": texts}, **once(key))).json() == wanted
    # A place is the same answer too, whichever way it was asked for first.
    headers = {"idempotency-key": next(fresh), "prefer": "respond-async"}
    place = (await first.classify("c", headers=headers)).json()["place"]
    del headers["prefer"]
    found = await second.classify("c", headers=headers)
    assert (found.status_code, found.json()["place"]) == (200, place)
    # Each face takes it.
    for _ in range(2):
        tei = await first.http.post("/predict", json={"inputs": "d"}, **once("of-tei"))
        assert tei.status_code == 200
    assert Counter(await published(site)) - before == Counter(["a", "c", "d", *(one["text"] for one in texts)])


async def test_what_becomes_of_calls_with_a_key_is_counted(pair: Pair) -> None:
    _, first, _ = pair
    registry = first.gateway.metrics.registry

    def counted() -> list[float]:
        name = "headrace_gateway_idempotent_calls_total"
        outcomes = ("published", "repeated", "refused")
        return [registry.get_sample_value(name, {"outcome": outcome}) or 0.0 for outcome in outcomes]

    before, key = counted(), next(fresh)
    for text, status in (("a", 200), ("a", 200), ("another", 422), ("a", 200)):
        assert (await first.classify(text, **once(key))).status_code == status
    assert [now - then for now, then in zip(counted(), before, strict=True)] == [1, 2, 1]
    assert registry.get_sample_value("headrace_gateway_idempotency_keys") >= 1


async def test_another_body_under_the_same_key_is_refused_and_another_key_is_not(embedded_bootstrap: str) -> None:
    async with two(embedded_bootstrap, max_idempotency_keys=3) as (_, first, second):
        assert (await first.classify("a", **once("one"))).status_code == 200
        for gateway in (first, second):
            other = await gateway.classify("b", **once("one"))
            assert (other.status_code, other.json()["field"]) == (422, "Idempotency-Key")
            assert other.json()["type"].endswith("idempotency-mismatch")
        elsewhere = await first.http.post("/predict", json="a", **once("one"))
        assert elsewhere.status_code == 422
        for wrong in ("", "ü", "x" * 256, "a b", '"'):
            headers = [(b"idempotency-key", wrong.encode("latin-1"))]
            assert (await first.http.post("/v1/classify", json="a", headers=headers)).status_code == 422, wrong
        for key in ("two", "three"):
            assert (await first.classify("a", **once(key))).status_code == 200
        full = await first.classify("a", **once("four"))
        assert (full.status_code, full.json()["limit"]) == (429, 3)
        assert int(full.headers["retry-after"]) > 1
        assert (await first.classify("a", **once("one"))).status_code == 200
        assert (await first.classify("a")).status_code == 200


async def test_many_at_once_with_one_key_are_published_once(pair: Pair) -> None:
    site, first, second = pair
    gateways = (first, second)

    async def patient(number: int) -> dict[str, Any]:
        while True:
            reply = await gateways[number % 2].classify(["at", "once"], **once("at-once"))
            if reply.status_code != 409:
                assert reply.status_code == 200, reply.text
                return reply.json()
            assert reply.headers["retry-after"] == "1"
            await asyncio.sleep(0.01)

    answers = await asyncio.gather(*map(patient, range(20)))
    assert all(one == answers[0] for one in answers)
    assert [one for one in await published(site) if one in ("at", "once")] == ["at", "once"]


@pytest.mark.parametrize("sent", [0, 1, 2])
async def test_a_gateway_killed_between_the_record_and_the_publish_neither_loses_nor_doubles(
    embedded_bootstrap: str, monkeypatch: pytest.MonkeyPatch, sent: int
) -> None:
    async with two(embedded_bootstrap) as (site, first, second):
        reached = asyncio.Event()
        # It dies with so many of two texts published, and nothing said of them.
        senders = first.gateway._senders
        own = senders.put

        def dies(parts: Mapping[int, Queued]) -> None:
            own({at: Queued(one.batch, one.numbers[:sent], one.records[:sent]) for at, one in parts.items()})
            reached.set()

        monkeypatch.setattr(senders, "put", dies)
        monkeypatch.setattr(first.gateway.idempotency, "settle_when_published", lambda *_: None)
        for gateway in (first, second):
            lease(gateway, 3600.0)
        site.answering.clear()
        call = asyncio.create_task(first.classify(["a", "b"], **once("killed")))
        await reached.wait()

        async def there() -> bool:
            return len(await published(site)) == sent

        await until(there, LIMIT_S)
        await cut_off(first)
        with pytest.raises(httpx.TransportError):
            await call
        site.answering.set()
        early = await second.classify(["a", "b"], **once("killed"))
        assert early.status_code == 409, early.text
        assert int(early.headers["retry-after"]) > 60
        lease(second, 0.0)
        late = await second.classify(["a", "b"], **once("killed"))
        assert late.status_code == 200, late.text
        assert sorted(await published(site)) == ["a", "b"]
        again = await second.classify(["a", "b"], **once("killed"))
        assert (again.json(), again.headers["idempotent-replayed"]) == (late.json(), "true")


async def test_what_is_hostile_on_the_topic_is_left_out(
    embedded_bootstrap: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with two(embedded_bootstrap, max_idempotency_keys=10) as (site, first, _):
        await first.classify("a", **once("mine"))
        [kept] = first.gateway.idempotency.log._kept.values()
        mine, key = kept.record, idempotency._outgoing(kept.record).key
        floods = [
            IdempotentCall(key=f"{n:064x}", attempt="f", body="0" * 64, state="claimed", texts=1) for n in range(19)
        ]
        hostile = [
            Outgoing(b"rubbish", key),
            Outgoing(b"rubbish", None),
            Outgoing(encode_idempotent_call(mine), b"call/other"),
            Outgoing(
                encode_idempotent_call(IdempotentCall(key="k", attempt="a", body="b", state="?", texts=1)), b"call/k/a"
            ),
            Outgoing(None, b"call/nobody"),
            *map(idempotency._outgoing, floods),
        ]
        async with connected(site.cluster.producer()) as producer:
            await producer.send_batch(site.names.idempotency, 0, hostile)
        await until(lambda: len(first.gateway.idempotency.log) == 20, LIMIT_S)
        assert (await first.classify("a", **once("mine"))).headers["idempotent-replayed"] == "true"
        assert "mine" not in caplog.text
        more = [
            IdempotentCall(key=f"f{n:063x}", attempt="f", body="0" * 64, state="claimed", texts=1) for n in range(50)
        ]
        async with connected(site.cluster.producer()) as producer:
            await producer.send_batch(site.names.idempotency, 0, [idempotency._outgoing(one) for one in more])
        await until(lambda: f"f{49:063x}" in first.gateway.idempotency.log._kept, LIMIT_S)
        assert len(first.gateway.idempotency.log) == 20
