"""`headrace labels` as a user runs it, on the twin."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner, Result

from headrace import cli
from headrace.client.labels import Labelled, publish_labels, text_ids
from headrace.commands import labels as commands
from headrace.core.clock import SystemClock
from headrace.core.errors import UserError
from headrace.files.output import OutputError
from headrace.kafka.interface import NotAuthorizedError, Outgoing, TopicPartition, TopicSpec
from headrace.kafka.memory import MemoryCluster
from headrace.kafka.memory.consumer import MemoryConsumer
from headrace.learning.data.files import read_rows
from headrace_schemas.codec import encode_label
from headrace_schemas.records import LabelledText

TOPIC = "classify.labels"
LABELS = [
    Labelled("1", "good film", "pos"),
    Labelled("2", 'bad "film",\nreally', "neg"),
    Labelled("3", "red\x1b[31m", "neg"),
    Labelled(text_ids(["no id"])[0], "no id", "neg"),
]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> MemoryCluster:
    cluster = MemoryCluster(SystemClock())
    monkeypatch.setattr(commands, "cluster_of", lambda settings: cluster)
    cluster.create_topic(TopicSpec(name=TOPIC, partitions=2))
    asyncio.run(publish_labels(cluster, TOPIC, labels=LABELS))
    return cluster


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, ["labels", *map(str, arguments)], catch_exceptions=False)


def tombstones(cluster: MemoryCluster) -> list[str]:
    logs = [cluster.log(TopicPartition(TOPIC, number)).records for number in range(2)]
    return [record.key.decode() for records in logs for record in records if record.value is None]


def test_erasing_what_was_never_there_says_so_writes_nothing_and_ends_with_1(cluster: MemoryCluster) -> None:
    ended = run("erase", "no-such-id", "--text", "never seen")
    assert ended.exit_code == 1
    assert "no-such-id: classify.labels has no such label" in ended.output
    assert "text 1: classify.labels has no such label" in ended.output
    assert "erased 0 labels" in ended.output
    assert tombstones(cluster) == []


def test_erasing_names_those_that_were_not_there_beside_those_that_were(cluster: MemoryCluster) -> None:
    ended = run("erase", "1", "9", "--text", "No  ID")
    assert ended.exit_code == 0
    assert "9: classify.labels has no such label" in ended.output
    assert "erased 2 labels" in ended.output
    assert sorted(tombstones(cluster)) == sorted(["1", LABELS[3].id])
    assert run("erase", "1").exit_code == 1  # it is gone now


@pytest.mark.parametrize("arguments", [("erase", "a\udcff"), ("erase", "--text", "a\udcff"), ("erase", ""), ("erase",)])
def test_what_no_label_can_have_is_refused(cluster: MemoryCluster, arguments: tuple[str, ...]) -> None:
    with pytest.raises(UserError):
        run(*arguments)
    assert tombstones(cluster) == []


def test_who_may_only_write_labels_erases_without_knowing(
    cluster: MemoryCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(self: MemoryConsumer, partitions: object) -> None:
        raise NotAuthorizedError("no right to Read")

    monkeypatch.setattr(MemoryConsumer, "end_offsets", refuse)
    assert "is unknown" in run("erase", "1", "no-such-id").output
    assert sorted(tombstones(cluster)) == ["1", "no-such-id"]


def test_labels_are_listed_by_pages_and_obey_no_control_character(cluster: MemoryCluster) -> None:
    everything = run("list").output
    assert "good film" in everything
    assert "\x1b" not in everything
    assert "4 of 4 labels" in everything
    assert "2 of 4 labels on classify.labels; --skip 2 shows more" in run("list", "--limit", 2).output
    assert "1 of 1 label on" in run("list", "--label", "pos").output


def test_labels_are_listed_for_programs_one_a_line(cluster: MemoryCluster) -> None:
    cluster.log(TopicPartition(TOPIC, 0)).append_batch([Outgoing(b"{rubbish", b"bad")], 0)
    rows = [msgspec.json.decode(line) for line in run("list", "--json").output.splitlines()]
    assert {row["id"]: row["error"] for row in rows} == {**{one.id: None for one in LABELS}, "bad": "bad-bytes"}
    assert next(row for row in rows if row["id"] == "2")["text"] == LABELS[1].text


def test_labels_have_the_names_that_training_gives_them(cluster: MemoryCluster, tmp_path: Path) -> None:
    odd = {"a": "cafe\u0301 ", "b": "\ufeffcafé", "c": "TRUE", "d": " \u200b "}
    asyncio.run(publish_labels(cluster, TOPIC, labels=[Labelled(id_, "x", name) for id_, name in odd.items()]))
    rows = [msgspec.json.decode(line) for line in run("list", "--json").output.splitlines()]
    found = {row["id"]: (row["label"], row["error"]) for row in rows if row["id"] in odd}
    assert found == {"a": ("café", None), "b": ("café", None), "c": ("true", None), "d": ("", "empty-label")}
    for given in ("café", " cafe\u0301"):
        assert "2 of 2 labels" in run("list", "--label", given).output
    assert "left out 1" in run("export", tmp_path / "labels.jsonl").output


@pytest.mark.parametrize("name", ["labels.jsonl", "labels.csv"])
def test_what_is_exported_is_what_training_reads(cluster: MemoryCluster, tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    assert f"wrote 4 labels of {TOPIC}" in run("export", file).output
    rows = read_rows(file, text_column="text", label_column="label")
    assert sorted(zip(rows.texts, rows.labels, strict=True)) == sorted((one.text, one.label) for one in LABELS)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    with pytest.raises(UserError, match="--force"):
        run("export", file)
    assert run("export", file, "--force").exit_code == 0


def test_an_export_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"\.jsonl or \.csv"):
        run("export", tmp_path / "labels.xlsx")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file is no folder"):
        run("export", tmp_path / "file" / "labels.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(OutputError, match="is a folder: name a file in it"):
        run("export", tmp_path / "folder.csv", "--force")


def test_an_export_is_for_its_owners_eyes_alone(cluster: MemoryCluster, tmp_path: Path) -> None:
    file = tmp_path / "new" / "labels.csv"
    assert run("export", file).exit_code == 0
    assert file.stat().st_mode & 0o777 == 0o600


def test_without_a_usable_label_no_file_is_written(cluster: MemoryCluster, tmp_path: Path) -> None:
    run("erase", *[one.id for one in LABELS])
    with pytest.raises(UserError, match="holds no label"):
        run("export", tmp_path / "labels.csv")
    assert list(tmp_path.iterdir()) == []


def test_of_an_id_on_several_partitions_the_latest_of_their_last_records_counts(cluster: MemoryCluster) -> None:
    def append(partition: int, label: str, moment: int) -> None:
        value = encode_label(LabelledText(text="moved", label=label))
        cluster.log(TopicPartition(TOPIC, partition)).append_batch([Outgoing(value, b"m", timestamp_ms=moment)], 0)

    append(0, "first", 20)
    append(1, "latest", 10)
    append(0, "last of its partition", 5)
    assert "latest" in run("list", "--json").output
    append(0, "as late, in a lower partition", 10)
    assert "lower partition" not in run("list", "--json").output
