import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from headrace.commands import dead_letters
from headrace.config import Settings
from headrace.kafka.dead_letters import DeadLetterSettings, dead_letter, keeping
from headrace.kafka.interface import FetchedRecord, Outgoing, TopicPartition, TopicSpec
from headrace.security.keys import SEALING, make_key, public_key_text, read_key
from headrace_schemas.dead_letters import dead_letter_headers
from headrace_schemas.records import DeadLetter
from tests.support.memory_kafka import MemoryCluster
from tests.support.turned_loop import TurnedClock, run_turned

NAMES = Settings().topics.names()


def cluster_in_place_of_kafka(monkeypatch: pytest.MonkeyPatch) -> MemoryCluster:
    cluster = MemoryCluster(TurnedClock())
    monkeypatch.setattr(dead_letters, "cluster_of", lambda _: cluster)
    for name in (NAMES.requests, NAMES.labels, NAMES.dead_letters):
        cluster.create_topic(TopicSpec(name=name, partitions=2))
    return cluster


def test_a_replayed_label_goes_back_to_the_labels_and_a_request_to_the_requests(monkeypatch) -> None:
    async def main() -> None:
        cluster = cluster_in_place_of_kafka(monkeypatch)
        for topic in (NAMES.requests, NAMES.labels):
            letter = DeadLetter(
                topic=topic, partition=1, offset=0, timestamp_ms=0, stage="s", error="e", message="m", key=b"k"
            )
            cluster.log(TopicPartition(topic, 1)).append_batch([Outgoing(topic.encode(), b"k")], 0)
            log = cluster.log(TopicPartition(NAMES.dead_letters, 1))
            log.append_batch([Outgoing(topic.encode(), letter.key, dead_letter_headers(letter))], 0)
        assert await dead_letters._replay(Settings(), (), None, 3) == (2, 0, 0, Counter())
        for topic in (NAMES.requests, NAMES.labels):
            _, record = cluster.log(TopicPartition(topic, 1)).records
            assert (record.key, record.value) == (b"k", topic.encode())
        # Once more it finds them marked, until their places are named.
        assert await dead_letters._replay(Settings(), (), None, 3) == (0, 0, 2, Counter())
        assert await dead_letters._replay(Settings(), ((1, 0),), None, 3) == (1, 0, 0, Counter())
        assert len(await dead_letters._collect(Settings(), (), None)) == 2

    run_turned(main())


def test_only_what_is_whole_is_replayed_and_the_private_key_makes_a_sealed_letter_whole(monkeypatch, tmp_path) -> None:
    public = public_key_text(SEALING, make_key(tmp_path / "key.pem"))
    make_key(tmp_path / "other.pem")
    keys = {name: read_key(tmp_path / f"{name}.pem") for name in ("key", "other")}

    def letter(offset: int, **settings: Any) -> Outgoing:
        record = FetchedRecord(NAMES.requests, 1, offset, 5, b"k", b"a long value", (("tenant", b"shop"),))
        keep = keeping(DeadLetterSettings(**settings))
        return dead_letter(record, stage="decode", error="bad-bytes", message="no JSON", keep=keep)

    async def main() -> None:
        cluster = cluster_in_place_of_kafka(monkeypatch)
        requests = cluster.log(TopicPartition(NAMES.requests, 1))
        requests.append_batch([Outgoing(b"a long value", b"k", (("tenant", b"shop"),))], 5)
        log = cluster.log(TopicPartition(NAMES.dead_letters, 1))
        log.append_batch(
            [
                letter(0, keep="encrypted", public_key=public),
                letter(1, keep="cut", cut_bytes=3),
                letter(2, keep="nothing"),
            ],
            0,
        )
        for key in (None, keys["other"]):
            done = await dead_letters._replay(Settings(), (), None, 3, key)
            assert (done.replayed, sorted(done.refused.values())) == (0, [1, 1, 1])
            assert any("--key-file" in why for why in done.refused)
        assert len(requests.records) == 1
        done = await dead_letters._replay(Settings(), (), None, 3, keys["key"])
        assert done == (1, 0, 0, Counter({"cut": 1, "without its record": 1}))
        _, record = requests.records
        assert (record.key, record.value) == (b"k", b"a long value")
        assert list(record.headers) == [("tenant", b"shop"), ("headrace-attempt", b"2")]

    run_turned(main())


def test_keygen_prints_settings_that_can_be_used_and_no_private_key(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    done = CliRunner().invoke(dead_letters.app, ["keygen", "--out", str(file)])
    assert done.exit_code == 0
    settings = DeadLetterSettings(**tomllib.loads(done.stdout)["dead_letters"])
    assert settings.public_key == public_key_text(SEALING, read_key(file).public())
    assert "PRIVATE" not in done.stdout
    assert read_key(file).raw.hex() not in done.stdout
