"""Keys and usage in the console: what is shown of a key, who made and revoked it, and who did what."""

from __future__ import annotations

import pytest

from headrace.client.labels import tombstone
from headrace.core.usage import totals
from headrace.gateway.console.history import deed_of_model
from headrace.kafka.interface import Outgoing, TopicPartition, TopicSpec, connected
from headrace.security.api_keys import id_of, matches
from headrace_schemas.codec import decode_api_key, encode_models_record, encode_usage
from headrace_schemas.records import ApiKey, Certificate, LabelRule, ModelAlias, TrainingOrder, Usage
from headrace_schemas.topics import models_key, usage_key
from tests.unit.gateway.test_console_access import Site


class KeysSite(Site):
    """With the topics that the page reads."""

    def __init__(self) -> None:
        super().__init__()
        self.clock.at_s = 1_796_000_000.0
        names = self.settings.topics.names()
        self.names = names
        for name in (names.keys, names.usage, names.models, names.labels):
            self.cluster.create_topic(TopicSpec(name=name, partitions=1))

    async def operator(self) -> dict[str, str]:
        return await self.session("operator")

    def written(self) -> list[ApiKey]:
        records = self.cluster.log(TopicPartition(self.names.keys, 0)).records
        return [key for record in records if (key := decode_api_key(record.value)) is not None]

    async def send(self, topic: str, *records: Outgoing) -> None:
        async with connected(self.cluster.producer()) as producer:
            await producer.send_batch(topic, 0, list(records))


async def test_a_tokens_only_place_is_the_answer_that_made_it() -> None:
    site = KeysSite()
    headers = await site.operator()
    made = (
        await site.call(
            "POST",
            "/api/keys/add",
            headers,
            {"roles": ["client"], "tenant": "shop", "texts_per_second": 5, "note": "web"},
        )
    ).json()
    key = site.written()[-1]
    assert matches(made["token"], key)
    assert (key.tenant, key.roles, key.texts_per_second, key.note) == ("shop", ("client",), 5.0, "web")
    assert key.made_by == "a operator"
    answer = await site.call("GET", "/api/keys", headers)
    assert key.id.encode() in answer.body
    assert made["token"].encode() not in answer.body
    assert key.hash.encode() not in answer.body
    assert "token" not in answer.json()


async def test_who_revokes_a_key_stands_on_its_record_and_a_second_time_changes_nothing() -> None:
    site = KeysSite()
    headers = await site.operator()
    made = (await site.call("POST", "/api/keys/add", headers, {"roles": ["labeller"]})).json()
    id_ = id_of(made["token"])
    for _ in range(2):
        assert (await site.call("POST", "/api/keys/revoke", headers, {"id": id_})).status == 200
        site.clock.at_s += 5
    last = site.written()
    assert len(last) == 2
    assert (last[-1].revoked_by, last[-1].revoked_at_ms) == ("a operator", 1_796_000_000_000)
    assert not matches(made["token"], last[-1])
    assert (await site.call("POST", "/api/keys/revoke", headers, {"id": "0000"})).status == 404


@pytest.mark.parametrize(
    "wrong",
    [
        {"roles": []},
        {"roles": ["root"]},
        {"roles": ["client"], "tenant": "a/b"},
        {"roles": ["client"], "tenant": "shop\n"},
        {"roles": ["client"], "texts_per_second": 0},
        {"roles": ["client"], "burst": 5},
        {"roles": ["client"], "note": "n" * 201},
    ],
)
async def test_a_key_that_the_command_would_refuse_is_not_made(wrong: dict[str, object]) -> None:
    site = KeysSite()
    assert (await site.call("POST", "/api/keys/add", await site.operator(), wrong)).status == 422
    assert site.written() == []


async def test_usage_of_a_month_is_what_the_command_counts_by_key_and_by_tenant() -> None:
    site = KeysSite()
    used = [
        Usage(
            api_key=f"k{number}",
            day=day,
            process="a",
            calls=1,
            texts=number,
            text_bytes=9,
            written_at_ms=0,
            tenant="shop",
        )
        for number, day in ((1, "2026-11-03"), (2, "2026-11-04"), (3, "2026-10-01"))
    ]
    keys = [usage_key(one.api_key, one.day, one.process) for one in used]
    await site.send(site.names.usage, *(Outgoing(encode_usage(one), key) for one, key in zip(used, keys, strict=True)))
    headers = await site.operator()
    found = (await site.call("GET", "/api/usage?month=2026-11", headers)).json()
    assert [(one["api_key"], one["texts"]) for one in found["keys"]] == [
        (one.api_key, one.texts) for one in totals(used, "2026-11")
    ]
    assert [(one["tenant"], one["keys"], one["texts"]) for one in found["tenants"]] == [("shop", 2, 3)]
    assert found["months"] == ["2026-11", "2026-10"]
    assert (await site.call("GET", "/api/usage?month=november", headers)).status == 422


async def test_who_did_what_is_read_from_the_log_the_newest_first() -> None:
    site = KeysSite()
    headers = await site.operator()
    made = (await site.call("POST", "/api/keys/add", headers, {"roles": ["client"]})).json()
    await site.call("POST", "/api/keys/revoke", headers, {"id": made["made"]["id"]})
    moved = ModelAlias(name="default", alias="champion", version="v1", moved_at_ms=5, reason="good", by="olga")
    other = ModelAlias(name="another", alias="champion", version="v1", moved_at_ms=6, by="eve")
    await site.send(
        site.names.models, *(Outgoing(encode_models_record(one), models_key(one)) for one in (moved, other))
    )
    await site.send(site.names.labels, tombstone("text-1", "ana"), tombstone("text-2"))
    found = (await site.call("GET", "/api/history", headers)).json()
    told = [(one["did"], one.get("by"), one["about"]) for one in found["deeds"]]
    assert ("moved", "olga", "champion to v1") in told
    assert ("erased", "ana", "the label text-1") in told
    assert ("erased", None, "the label text-2") in told
    assert {(did, by) for did, by, about in told if "API key" in about} == {
        ("made", "a operator"),
        ("revoked", "a operator"),
    }
    assert len(told) == 5
    times = [one["at_ms"] for one in found["deeds"]]
    assert times == sorted(times, reverse=True)
    assert found["unread"] == []


async def test_history_says_which_topic_could_not_be_read() -> None:
    site = Site()
    site.cluster.create_topic(TopicSpec(name=site.settings.topics.names().keys, partitions=1))
    found = (await site.call("GET", "/api/history", await site.session("operator"))).json()
    assert found["deeds"] == []
    assert [why.partition(":")[0] for why in found["unread"]] == ["classify.models", "classify.labels"]


def test_each_kind_of_decision_is_told_in_its_words() -> None:
    alias = ModelAlias(name="m", alias="champion", version="v1", moved_at_ms=1)
    pinned = ModelAlias(name="m", alias="champion", version="v1", moved_at_ms=2, pinned=True, by="olga")
    certificate = Certificate(
        name="m", version="v1", threshold=0.5, disagree=0.02, confidence=0.95, rows=9, accepted=9, errors=0, bound=0.01,
        coverage=1.0, certified_at_ms=3, by="olga",
    )  # fmt: skip
    told = [
        deed_of_model(alias, None),
        deed_of_model(pinned, alias),
        deed_of_model(alias, pinned),
        deed_of_model(TrainingOrder(name="m", ordered_at_ms=1, reason="now", by="olga"), None),
        deed_of_model(certificate, None),
        deed_of_model(LabelRule(name="m", label="fees", decided_at_ms=1, becomes="fee"), None),
    ]
    assert [None if one is None else (one.did, one.about, one.by) for one in told] == [
        ("moved", "champion to v1", None),
        ("pinned", "champion to v1", "olga"),
        ("unpinned", "champion to v1", None),
        ("ordered", "a training", "olga"),
        ("certified", "v1 from a score of 0.500 on, 2.00% wrong at most", "olga"),
        ("ruled", "fees is learnt as fee", None),
    ]
