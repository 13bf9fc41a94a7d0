"""`headrace keys` and `headrace usage` as a user runs them, on the twin."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner, Result

from headrace import cli
from headrace.commands import keys
from headrace.config import Settings
from headrace.core.clock import SystemClock
from headrace.core.errors import UserError
from headrace.kafka.interface import Outgoing, TopicPartition, TopicSpec
from headrace.security.api_keys import id_of, matches
from headrace_schemas.codec import decode_api_key, encode_usage
from headrace_schemas.records import ApiKey, Usage
from headrace_schemas.topics import usage_key
from tests.support.memory_kafka import MemoryCluster

NAMES = Settings().topics.names()


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> MemoryCluster:
    cluster = MemoryCluster(SystemClock())
    monkeypatch.setattr(keys, "cluster_of", lambda settings: cluster)
    for name in (NAMES.keys, NAMES.usage):
        cluster.create_topic(TopicSpec(name=name, partitions=1))
    return cluster


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, arguments, catch_exceptions=False)


def last(cluster: MemoryCluster) -> ApiKey:
    record = decode_api_key(cluster.log(TopicPartition(NAMES.keys, 0)).records[-1].value)
    assert record is not None
    return record


def test_a_key_is_made_its_token_shown_once_and_only_its_hash_kept(cluster: MemoryCluster) -> None:
    token = run("keys", "add", "--tenant", "shop", "--texts-per-second", "5", "--note", "web").stdout.strip()
    assert matches(token, last(cluster))
    assert (last(cluster).tenant, last(cluster).roles, last(cluster).texts_per_second) == ("shop", ("client",), 5.0)
    listed = run("keys", "list").stdout + run("keys", "list", "--json").stdout
    assert (id_of(token) or "?") in listed
    assert token not in listed
    assert last(cluster).hash not in listed


def test_a_revoked_key_stays_listed_and_matches_no_more(cluster: MemoryCluster) -> None:
    token = run("keys", "add", "--role", "operator", "--role", "labeller", "--by", "olga").stdout.strip()
    assert "revoked at" in run("keys", "revoke", id_of(token) or "", "--by", "ben").stdout
    assert (last(cluster).made_by, last(cluster).revoked_by) == ("olga", "ben")
    assert not matches(token, last(cluster))
    assert last(cluster).roles == ("labeller", "operator")
    assert "revoked" in run("keys", "list").stdout
    with pytest.raises(UserError, match="no API key 'nobody'"):
        run("keys", "revoke", "nobody")


@pytest.mark.parametrize(
    ("arguments", "said"), [(("--tenant", "a b"), "--tenant"), (("--burst", "5"), "--texts-per-second")]
)
def test_what_can_be_no_key_is_refused(cluster: MemoryCluster, arguments: tuple[str, ...], said: str) -> None:
    with pytest.raises(UserError, match=said):
        run("keys", "add", *arguments)
    assert not cluster.log(TopicPartition(NAMES.keys, 0)).records


def test_a_month_is_summed_over_its_days_and_the_processes_of_gateways(cluster: MemoryCluster) -> None:
    log = cluster.log(TopicPartition(NAMES.usage, 0))
    for key, day, process, texts in [
        ("a", "2026-01-30", "p1", 1),
        ("a", "2026-01-30", "p1", 10),
        ("a", "2026-01-31", "p1", 100),
        ("a", "2026-01-31", "p2", 1000),
        ("a", "2026-02-01", "p2", 5),
        ("b", "2026-01-01", "p2", 7),
    ]:
        one = Usage(api_key=key, day=day, process=process, calls=1, texts=texts, text_bytes=texts, written_at_ms=0)
        log.append_batch([Outgoing(encode_usage(one), usage_key(key, day, process))], 0)
    rows = [json.loads(line) for line in run("usage", "--month", "2026-01", "--json").stdout.splitlines()]
    assert [(row["api_key"], row["calls"], row["texts"]) for row in rows] == [("a", 3, 1110), ("b", 1, 7)]
    assert "a  1 call  5 texts" in run("usage", "--month", "2026-02").stdout
    assert "nothing was asked in 2025-12" in run("usage", "--month", "2025-12").stdout
    with pytest.raises(UserError, match="2026-01"):
        run("usage", "--month", "13")
