"""`dead-letters purge` and `topics delete` as a user runs them, on the twin: what they ask, refuse and delete."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import pytest
from typer.testing import CliRunner, Result

from headrace import cli
from headrace.commands import common, dead_letters, topics
from headrace.config import Settings
from headrace.core.clock import SystemClock
from headrace.core.errors import UserError
from headrace.kafka.dead_letters import dead_letter
from headrace.kafka.interface import BrokerUnavailableError, FetchedRecord, Outgoing, TopicPartition, TopicSpec
from tests.support.memory_kafka import MemoryCluster
from tests.support.memory_kafka.cluster import MemoryAdmin, MemoryProducer

NAMES = Settings().topics.names()
OTHER = "somebody.elses"


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> MemoryCluster:
    cluster = MemoryCluster(SystemClock())
    for module in (dead_letters, topics):
        monkeypatch.setattr(module, "cluster_of", lambda settings: cluster)
    for name in (*msgspec.structs.astuple(NAMES), OTHER):
        cluster.create_topic(TopicSpec(name=name, partitions=2))
    for offset in range(3):
        cluster.log(TopicPartition(NAMES.requests, 1)).append_batch([Outgoing(b"{")], 0)
        record = FetchedRecord(NAMES.requests, 1, offset, 0, None, b"{", ())
        letter = dead_letter(record, stage="decode", error="bad-bytes", message="m")
        cluster.log(TopicPartition(NAMES.dead_letters, 1)).append_batch([letter], 0)
    return cluster


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, arguments, catch_exceptions=False)


def letters(cluster: MemoryCluster) -> list[int]:
    return [record.offset for record in cluster.log(TopicPartition(NAMES.dead_letters, 1)).records]


def test_purging_says_how_many_were_never_replayed_and_deletes_them(cluster: MemoryCluster) -> None:
    run("dead-letters", "replay", "1@0")
    said = run("dead-letters", "purge", "--all", "--yes").output
    assert "3 dead letters on classify.dead-letters, 2 of them never replayed" in said
    assert "deleted 3 dead letters" in said
    assert letters(cluster) == []


def test_letters_are_listed_on_lines_that_a_letter_can_not_add_to(cluster: MemoryCluster) -> None:
    record = FetchedRecord(NAMES.requests, 0, 7, 0, None, b"{", ())
    where = f"{NAMES.requests}[0]@7"
    letter = dead_letter(record, stage="decode", error="bad\n0@1 forged", message=f"{where}: m\x1b[2J\nforged")
    cluster.log(TopicPartition(NAMES.dead_letters, 0)).append_batch([letter], 0)
    lines = run("dead-letters", "list").output.splitlines()
    assert len(lines) == 8
    assert lines[:2] == [f"0@0  {where}  decode: bad\\u000a0@1 forged, attempt 1", "  m\\u001b[2J\\u000aforged"]
    assert max(map(len, lines)) <= 80


def test_purging_up_to_a_place_keeps_what_lies_behind_it(cluster: MemoryCluster) -> None:
    assert "deleted 2 dead letters" in run("dead-letters", "purge", "1@1", "--yes").output
    assert letters(cluster) == [2]
    with pytest.raises(UserError, match="no dead letter at 1@3"):
        run("dead-letters", "purge", "1@3", "--yes")


@pytest.mark.parametrize("command", [("dead-letters", "purge", "--all"), ("topics", "delete", "--all")])
def test_without_a_terminal_nothing_is_deleted_unless_it_was_said(cluster: MemoryCluster, command: list[str]) -> None:
    with pytest.raises(UserError, match="--yes"):
        run(*command)
    assert letters(cluster) == [0, 1, 2]
    assert NAMES.labels in cluster.topics


@pytest.mark.parametrize(("agreed", "left"), [(False, [0, 1, 2]), (True, [])])
def test_on_a_terminal_it_is_asked(
    cluster: MemoryCluster, monkeypatch: pytest.MonkeyPatch, agreed: bool, left: list[int]
) -> None:
    asked = []

    def answer(question: str, *, yes: bool) -> None:
        asked.append(question)
        if not agreed:
            raise common.NotConfirmedError("Nothing was deleted.")

    monkeypatch.setattr(dead_letters, "confirm", answer)
    if agreed:
        run("dead-letters", "purge", "--all")
    else:
        with pytest.raises(UserError, match="Nothing was deleted"):
            run("dead-letters", "purge", "--all")
    assert asked == ["Delete them for good?"]
    assert letters(cluster) == left


def test_topics_are_shown_with_what_is_in_them_and_deleted(cluster: MemoryCluster) -> None:
    said = run("topics", "delete", NAMES.dead_letters, NAMES.requests, "--yes").output
    assert f"{NAMES.dead_letters}: 2 partitions, 3 records" in said
    assert f"deleted {NAMES.requests}" in said
    assert NAMES.dead_letters not in cluster.topics
    assert NAMES.labels in cluster.topics


def test_a_topic_that_the_settings_do_not_name_is_never_deleted(cluster: MemoryCluster) -> None:
    with pytest.raises(UserError, match="only topics of these settings"):
        run("topics", "delete", OTHER, NAMES.requests, "--yes")
    assert run("topics", "delete", "--all", "--yes").exit_code == 0
    assert set(cluster.topics) == {OTHER}


def test_deleting_what_is_not_there_ends_with_1(cluster: MemoryCluster) -> None:
    run("topics", "delete", "--all", "--yes")
    ended = run("topics", "delete", NAMES.labels, "--yes")
    assert (ended.exit_code, "is not there" in ended.output) == (1, True)


def letter_in(cluster: MemoryCluster, partition: int) -> None:
    cluster.log(TopicPartition(NAMES.requests, partition)).append_batch([Outgoing(b"{")], 0)
    record = FetchedRecord(NAMES.requests, partition, 0, 0, None, b"{", ())
    letter = dead_letter(record, stage="decode", error="bad-bytes", message="m")
    cluster.log(TopicPartition(NAMES.dead_letters, partition)).append_batch([letter], 0)


def test_a_purge_in_which_the_broker_goes_away_says_how_many_went(
    cluster: MemoryCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    letter_in(cluster, 0)
    delete = MemoryAdmin.delete_records

    async def failing(self: MemoryAdmin, before: Mapping[TopicPartition, int]) -> None:
        if any(name.partition for name in before):
            raise BrokerUnavailableError("away")
        await delete(self, before)

    monkeypatch.setattr(MemoryAdmin, "delete_records", failing)
    with pytest.raises(BrokerUnavailableError) as ended:
        run("dead-letters", "purge", "--all", "--yes")
    assert ended.value.__notes__ == [
        (
            "1 dead letters were deleted (all of partition 0), and of partition 1 it is unknown. The same command may "
            "be run again."
        )
    ]


@pytest.mark.parametrize(
    ("named", "behind"),
    [
        (("--all",), "The same command goes on: it leaves out what was replayed."),
        (("1@0", "1@1", "1@2"), "Not replayed yet: 1@2."),
    ],
)
def test_a_replay_in_which_the_broker_goes_away_says_how_many_went(
    cluster: MemoryCluster, monkeypatch: pytest.MonkeyPatch, named: tuple[str, ...], behind: str
) -> None:
    send, sent = MemoryProducer.send, []

    async def failing(self: MemoryProducer, topic: str, record: Outgoing, **more: int) -> object:
        sent.append(topic)
        if len(sent) > 2:
            raise BrokerUnavailableError("away")
        return await send(self, topic, record, **more)

    monkeypatch.setattr(MemoryProducer, "send", failing)
    with pytest.raises(BrokerUnavailableError) as ended:
        run("dead-letters", "replay", *named)
    unknown = "1 letter was replayed, and of 1@1 it is unknown: a replay may publish it twice."
    assert ended.value.__notes__ == [f"{unknown} {behind}"]
