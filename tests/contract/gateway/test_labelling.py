"""Labels, erasure, reviews and aliases over HTTP."""

from __future__ import annotations

from typing import Any

from headrace.client.reviews import ReviewPublisher
from headrace.kafka.interface import Outgoing, connected
from headrace.learning.data.labels import read_labels
from headrace.learning.data.machine_labels import read_machine_labels
from headrace.security.api_keys import KeyRole, id_of
from headrace_schemas.codec import encode_machine_label
from headrace_schemas.records import BarredText, MachineLabel
from headrace_schemas.topics import machine_labels_key
from tests.support.gateways import GatewaySite, RunningGateway


async def labels(site: GatewaySite) -> dict[str, tuple[str, str, str | None]]:
    found = await read_labels(site.cluster, site.names.labels)
    return {one.id: (one.text, one.label, one.source) for one in found}


async def test_labels_are_published_replaced_and_erased_with_what_teachers_said(gateway: RunningGateway) -> None:
    http, site = gateway.http, gateway.site
    one = await http.post("/v1/labels", json={"text": "Where is Lima?", "label": "LOC", "id": "q-1", "source": "desk"})
    assert (one.status_code, one.json()) == (201, {"ids": ["q-1"]})
    two = await http.post(
        "/v1/labels", json=[{"text": "Where is Lima?", "label": "NUM", "id": "q-1"}, {"text": "Who?", "label": "HUM"}]
    )
    made = two.json()["ids"][1]
    assert await labels(site) == {"q-1": ("Where is Lima?", "NUM", None), made: ("Who?", "HUM", None)}
    taught = MachineLabel(text="where is  LIMA?", teacher="encoder-1", labelled_at_ms=1, label="LOC")
    async with connected(site.cluster.producer()) as producer:
        record = Outgoing(encode_machine_label(taught), machine_labels_key(taught))
        await producer.send_many(site.names.machine_labels, [record])
    erased = await http.delete("/v1/labels/q-1")
    assert erased.json() == {"labels": 1, "machine_labels": 1}
    assert set(await labels(site)) == {made}
    held = await read_machine_labels(site.cluster, site.names.machine_labels)
    assert all(isinstance(one.content, BarredText) for one in held)
    assert (await http.delete("/v1/labels/q-1")).status_code == 404


async def test_labels_that_can_be_none_are_refused_as_a_whole(gateway: RunningGateway) -> None:
    before = await labels(gateway.site)
    good = {"text": "a text", "label": "A"}
    for body, field in [
        ([good, {"text": "b", "label": ""}], "[1].label"),
        ([good, {"text": "x" * 70_000, "label": "A"}], "[1].text"),
        ([good, {"text": "...", "label": "\u200b"}], "[1].label"),
        ([good, {"text": "b", "label": "A", "answer": "there"}], "[1].answer"),
        ([], "labels"),
        ({"text": "a"}, None),
    ]:
        reply = await gateway.http.post("/v1/labels", json=body)
        assert (reply.status_code, reply.json().get("field")) == (422, field), reply.text
    assert await labels(gateway.site) == before


async def test_a_label_of_an_answer_is_a_review_that_its_tenant_reads(keyed: RunningGateway) -> None:
    shop = await keyed.site.add_key(KeyRole.CLIENT, KeyRole.LABELLER, tenant="shop")
    other = await keyed.site.add_key(KeyRole.CLIENT, KeyRole.LABELLER, tenant="other")
    await keyed.known(shop, other)
    mine, foreign = ({"authorization": f"Bearer {token}"} for token in (shop, other))
    place = (await keyed.classify("a text", headers=mine)).json()["place"]
    body = {"text": "a text", "label": "A", "answer": place}
    assert (await keyed.http.post("/v1/labels", json=body, headers=foreign)).status_code == 404
    assert (await keyed.http.post("/v1/labels", json=body, headers=mine)).status_code == 201
    [review] = (await keyed.http.get("/v1/reviews", headers=mine)).json()["reviews"]
    assert f"{review['partition']}@{review['offset']}" == place
    assert (review["label"], review["origin"], review["by"]) == ("A", "person", id_of(shop))
    assert (await keyed.http.get("/v1/reviews", headers=foreign)).json() == {"reviews": []}
    assert (await keyed.http.get("/v1/reviews?limit=0", headers=mine)).json()["field"] == "limit"


async def test_reviews_that_were_taken_back_are_shown_no_more_and_a_later_one_is(keyed: RunningGateway) -> None:
    token = await keyed.site.add_key(KeyRole.CLIENT, KeyRole.LABELLER, tenant="undone")
    await keyed.known(token)
    headers = {"authorization": f"Bearer {token}"}
    places = [(await keyed.classify(text, headers=headers)).json()["place"] for text in ("a text", "another text")]

    async def review(place: str, label: str) -> None:
        body = {"text": f"text at {place}", "label": label, "answer": place}
        assert (await keyed.http.post("/v1/labels", json=body, headers=headers)).status_code == 201

    async def shown() -> set[tuple[str, str]]:
        found = (await keyed.http.get("/v1/reviews", headers=headers)).json()["reviews"]
        return {(f"{one['partition']}@{one['offset']}", one["label"]) for one in found}

    for place in places:
        await review(place, "A")
    assert await shown() == {(places[0], "A"), (places[1], "A")}
    publisher = ReviewPublisher(keyed.site.cluster, keyed.site.names.reviews)
    partition, _, offset = places[0].partition("@")
    await publisher.take_back(keyed.site.names.results, [(int(partition), int(offset))])
    # What another results topic's reviews are taken back by is no matter of ours.
    other, _, number = places[1].partition("@")
    await publisher.take_back("foreign.results", [(int(other), int(number))])
    await publisher.stop()
    assert await shown() == {(places[1], "A")}
    await review(places[0], "B")
    assert await shown() == {(places[0], "B"), (places[1], "A")}


async def test_an_operator_moves_rolls_back_and_pins_an_alias_and_the_log_says_who(keyed: RunningGateway) -> None:
    token = await keyed.site.add_key(KeyRole.OPERATOR)
    await keyed.known(token)
    headers = {"authorization": f"Bearer {token}"}
    for version in ("v1", "v2"):
        await keyed.site.add_version(version, alias="champion" if version == "v1" else None)

    async def put(alias: str, body: Any) -> Any:
        return await keyed.http.put(f"/v1/models/aliases/{alias}", json=body, headers=headers)

    async def post(action: str, **more: Any) -> Any:
        return await keyed.http.post(f"/v1/models/aliases/champion/{action}", headers=headers, **more)

    moved = await put("champion", {"version": "v2", "reason": "better"})
    assert moved.status_code == 200, moved.text
    assert (moved.json()["version"], moved.json()["previous"], moved.json()["reason"]) == ("v2", "v1", "better")
    assert moved.json()["by"] == f"API key {id_of(token)}"
    assert (await post("rollback")).json()["version"] == "v1"
    assert (await post("pin", json={"reason": "holidays"})).json()["pinned"] is True
    assert "pinned" not in (await post("unpin")).json()
    assert (await put("champion", {"version": "v9"})).status_code == 409
    assert (await put("bad%20alias", {"version": "v1"})).status_code == 422
    assert (await put("champion", {})).status_code == 422
    assert (await post("forget")).status_code == 404
