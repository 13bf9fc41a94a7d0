"""Texts over HTTP, through a real socket and a real broker, to their answers."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from headrace.config.gateway import GatewaySettings
from headrace.core.token_bucket import TokenBucket
from tests.support.gateways import GatewaySite, RunningGateway, label_of
from tests.support.waiting import until

JSON = {"content-type": "application/json"}


def waits(gateway: RunningGateway) -> bool:
    """Whether a call of it waits for an answer."""
    return any(part.waiting for part in gateway.gateway.follower._parts.values())


FORMS: list[tuple[Any, list[str] | None]] = [
    ("a text", None),
    ({"text": "a text"}, None),
    (["a text"], ["a text"]),
    (["a", {"text": "b", "id": "q-1"}], ["a", "b"]),
    ({"texts": ["a", "b"]}, ["a", "b"]),
    ({"texts": [{"text": "a", "key": "k"}, "b"], "ranking": 1, "timeout": 20}, ["a", "b"]),
]


async def test_every_form_of_a_body_is_answered(gateway: RunningGateway) -> None:
    for body, texts in FORMS:
        reply = await gateway.classify(body)
        assert reply.status_code == 200, reply.text
        if texts is None:
            assert reply.json()["label"] == label_of("a text")
            assert set(reply.json()) == {"status", "place", "label", "score", "ranking", "version"}
        else:
            assert [one["label"] for one in reply.json()["answers"]] == [label_of(text) for text in texts]
        assert reply.headers["x-content-type-options"] == "nosniff"


async def test_a_bare_text_is_answered_and_ids_and_failures_come_back(gateway: RunningGateway) -> None:
    reply = await gateway.http.post("/v1/classify", content="Wo ist Köln?", headers={"content-type": "text/plain"})
    assert reply.json()["label"] == label_of("Wo ist Köln?")
    answers = (await gateway.classify([{"text": "fail here", "id": "q-7"}, "good"])).json()["answers"]
    assert (answers[0]["status"], answers[0]["id"], answers[0]["reason"]) == ("failed", "q-7", "told to fail")
    assert "label" not in answers[0]
    assert answers[1]["label"] == label_of("good")


async def test_a_ranking_is_as_long_as_it_is_asked_for(gateway: RunningGateway) -> None:
    assert len((await gateway.classify({"text": "a"})).json()["ranking"]) == 3
    assert len((await gateway.classify({"text": "a", "ranking": 2})).json()["ranking"]) == 2
    assert "ranking" not in (await gateway.classify({"text": "a", "ranking": 0})).json()


BAD: list[tuple[bytes, int, str | None, str]] = [
    (b"Where is Lima?", 400, "body", "text/plain"),
    (b"", 400, "body", "no JSON"),
    (b"[" * 100_000, 422, "[0]", "array"),
    (b"42", 422, None, '{"text"'),
    (b'{"txt": "a"}', 422, None, "txt"),
    (b"{}", 422, "text", "neither text nor texts"),
    (b'{"texts": ["a", 1]}', 422, "texts[1]", "int"),
    (b'{"text": "a", "texts": ["b"]}', 422, "texts", "exclude"),
    (b'{"texts": [], "timeout": 1}', 422, "texts", "no texts"),
    (b'{"text": "a", "timeout": -1}', 422, "timeout", "0.001"),
    (b'{"text": "a", "timeout": 3000}', 422, "timeout", "longest_timeout"),
    (b'{"text": "a", "ranking": 21}', 422, "ranking", "20"),
    (json.dumps(["b", "x" * 70_000]).encode(), 422, "texts[1].text", "65536"),
    (json.dumps({"text": "a", "id": "i" * 2000}).encode(), 422, "id", "1024"),
    (json.dumps({"text": "a", "key": "k" * 2000}).encode(), 422, "key", "key"),
    (json.dumps(["x"] * 10_001).encode(), 413, "texts", "10,000"),
]


async def test_what_is_wrong_is_told_with_field_and_limit(gateway: RunningGateway) -> None:
    for content, status, field, said in BAD:
        reply = await gateway.http.post("/v1/classify", content=content, headers=JSON)
        assert reply.headers["content-type"] == "application/problem+json"
        problem = reply.json()
        assert (reply.status_code, problem["status"], problem.get("field")) == (status, status, field), problem
        assert said in problem["detail"]
        assert problem["type"].startswith("urn:headrace:problem:")


async def test_a_large_batch_is_divided_over_the_partitions_and_answered_in_its_order(gateway: RunningGateway) -> None:
    await until(lambda: len(gateway.gateway.owned) == 4)
    texts = [f"text {number}" for number in range(3000)]
    answers = (await gateway.classify(texts)).json()["answers"]
    assert [one["label"] for one in answers] == [label_of(text) for text in texts]
    places = [one["place"] for one in answers]
    assert len(set(places)) == len(texts)
    assert {place.partition("@")[0] for place in places} == {"0", "1", "2", "3"}


async def test_texts_of_one_key_keep_their_order_in_one_partition(gateway: RunningGateway) -> None:
    answers = (await gateway.classify([{"text": f"t {n}", "key": "user-7"} for n in range(50)])).json()["answers"]
    places = [tuple(map(int, one["place"].split("@"))) for one in answers]
    assert len({partition for partition, _ in places}) == 1
    assert places == sorted(places)


async def test_without_waiting_a_caller_gets_places_and_asks_for_the_answers_by_them(gateway: RunningGateway) -> None:
    gateway.site.answering.clear()
    reply = await gateway.classify(["a", "b"], headers={"prefer": "respond-async"})
    assert reply.status_code == 202
    assert reply.headers["preference-applied"] == "respond-async"
    places = [one["place"] for one in reply.json()["answers"]]
    early = await gateway.http.get(f"/v1/answers/{places[0]}")
    assert (early.status_code, early.json()["status"]) == (202, "pending")
    assert int(early.headers["retry-after"]) >= 1
    waiting = asyncio.create_task(gateway.http.get(f"/v1/answers/{places[1]}?wait=50"))
    await until(lambda: waits(gateway))
    gateway.site.answering.set()
    late = await waiting
    assert (late.status_code, late.json()["label"], late.json()["place"]) == (200, label_of("b"), places[1])
    again = await gateway.http.get(f"/v1/answers/{places[0]}")
    assert again.json()["label"] == label_of("a")
    single = await gateway.classify("c", headers={"prefer": "respond-async, wait=5"})
    assert single.headers["location"] == f"/v1/answers/{single.json()['place']}"
    assert (await gateway.http.get(f"{single.headers['location']}?wait=20")).json()["label"] == label_of("c")


async def test_old_answers_are_found_wherever_they_stand(gateway: RunningGateway) -> None:
    texts = [{"text": f"text {number}", "key": "one"} for number in range(3000)]
    answers = (await gateway.classify(texts)).json()["answers"]
    for number in (0, 1, 700, 1499, 2998, 2999):
        found = await gateway.http.get(f"/v1/answers/{answers[number]['place']}")
        assert found.json()["label"] == label_of(f"text {number}"), number


async def test_a_place_that_is_not_there_is_not_found(gateway: RunningGateway) -> None:
    for place in ("0@999999", "99@0", "x", "-1@0", "0@-1", "0@1@2", "0@99999999999999999999"):
        assert (await gateway.http.get(f"/v1/answers/{place}")).status_code == 404, place


async def test_a_text_that_was_passed_over_is_lost(gateway: RunningGateway) -> None:
    gateway.site.skipped.add("never")
    first, second = await asyncio.gather(
        gateway.classify({"text": "never", "key": "k"}), _behind(gateway, {"text": "later", "key": "k"})
    )
    assert (first.json()["status"], second.json()["status"]) == ("lost", "ok")
    assert (await gateway.http.get(f"/v1/answers/{first.json()['place']}")).json()["status"] == "lost"


async def _behind(gateway: RunningGateway, body: Any) -> Any:
    await until(lambda: waits(gateway))
    return await gateway.classify(body)


async def test_who_waits_too_long_is_told_where_his_texts_are(gateway: RunningGateway) -> None:
    gateway.site.answering.clear()
    reply = await gateway.classify({"texts": ["a", "b"], "timeout": 0.5})
    assert (reply.status_code, reply.json()["type"]) == (504, "urn:headrace:problem:timeout")
    places = [one["place"] for one in reply.json()["answers"]]
    assert int(reply.headers["retry-after-ms"]) >= 1000
    assert not waits(gateway)
    gateway.site.answering.set()
    assert (await gateway.http.get(f"/v1/answers/{places[1]}?wait=30")).json()["label"] == label_of("b")


async def test_more_waiting_texts_than_are_allowed_are_refused_with_a_time_to_come_again(site: GatewaySite) -> None:
    async with site.gateway(max_waiting=10) as gateway:
        site.answering.clear()
        waiting = asyncio.create_task(gateway.classify([f"text {number}" for number in range(8)]))
        await until(lambda: gateway.gateway._waiting == 8)
        reply = await gateway.classify(["a", "b", "c"])
        assert (reply.status_code, reply.json()["type"]) == (503, "urn:headrace:problem:busy")
        assert int(reply.headers["retry-after"]) >= 1
        site.answering.set()
        assert (await waiting).status_code == 200


async def test_a_gateway_that_ends_answers_what_it_can_and_tells_the_places_of_the_rest(site: GatewaySite) -> None:
    async with site.gateway(drain=1.0) as gateway:
        site.answering.clear()
        waiting = asyncio.create_task(gateway.classify(["a", "b"]))
        await until(lambda: gateway.gateway._waiting == 2)
        await until(lambda: waits(gateway))
        gateway.stop.set()
        reply = await waiting
        assert (reply.status_code, reply.json()["type"]) == (503, "urn:headrace:problem:draining")
        places = [one["place"] for one in reply.json()["answers"]]
    site.answering.set()
    async with site.gateway() as another:
        found = await another.http.get(f"/v1/answers/{places[0]}?wait=30")
        assert found.json()["label"] == label_of("a")


async def test_models_health_and_what_is_not_there(gateway: RunningGateway) -> None:
    await gateway.site.add_version("v1")

    async def listed() -> Any:
        return (await gateway.http.get("/v1/models")).json()["versions"]

    [version] = await until(listed)
    assert (version["version"], version["aliases"]) == ("v1", ["champion"])
    assert [(await gateway.http.get(path)).status_code for path in ("/healthz", "/readyz")] == [200, 200]
    assert (await gateway.http.head("/healthz")).status_code == 200
    missing = await gateway.http.get("/v2/nothing")
    assert (missing.status_code, missing.json()["status"]) == (404, 404)
    wrong = await gateway.http.put("/v1/classify")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")


def test_half_a_tls_pair_is_refused() -> None:
    with pytest.raises(ValueError, match="go together"):
        GatewaySettings(tls_certfile="a.pem")


def test_a_bucket_gives_its_rate_and_a_large_batch_leaves_a_debt() -> None:
    bucket = TokenBucket(rate=10.0, burst=20.0, now_s=0.0)
    assert bucket.take(20, 0.0) == 0.0
    assert bucket.take(5, 0.0) == pytest.approx(0.5)
    assert bucket.take(5, 0.5) == 0.0
    assert bucket.take(200, 2.5) == 0.0
    assert bucket.take(1, 2.5) == pytest.approx(18.1)
