"""`headrace labels` as a user runs it, on the twin."""

from __future__ import annotations

import asyncio
import sys
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
from headrace.learning.data.files import read_rows
from headrace.learning.data.taught import read_taught
from headrace_schemas.codec import decode_machine_label, encode_label, encode_machine_label
from headrace_schemas.headers import BY
from headrace_schemas.records import BarredText, LabelledText, MachineLabel, Score
from headrace_schemas.topics import machine_label_key, machine_labels_key, text_key
from tests.support.memory_kafka import MemoryCluster
from tests.support.memory_kafka.consumer import MemoryConsumer

TOPIC = "classify.labels"
MACHINE = "classify.machine-labels"
LABELS = [
    Labelled("1", "good film", "pos"),
    Labelled("2", 'bad "film",\nreally', "neg"),
    Labelled("3", "red\x1b[31m", "neg"),
    Labelled(text_ids(["no id"])[0], "no id", "neg"),
]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> MemoryCluster:
    cluster = MemoryCluster(SystemClock())
    for module in (commands, sys.modules["headrace.commands.erase"]):
        monkeypatch.setattr(module, "cluster_of", lambda settings: cluster)
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
    ended = run("erase", "1", "9", "--text", "No  ID", "--by", "olga")
    assert ended.exit_code == 0
    logs = [cluster.log(TopicPartition(TOPIC, number)).records for number in range(2)]
    assert {dict(one.headers)[BY] for records in logs for one in records if one.value is None} == {b"olga"}
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


@pytest.fixture
def taught(cluster: MemoryCluster) -> MemoryCluster:
    """A topic of what two teachers said, by which one text is spelled otherwise."""
    cluster.create_topic(TopicSpec(name=MACHINE, partitions=2))
    teach(cluster, "good film", "encoder-1")
    teach(cluster, "Good   film", "encoder-1")
    teach(cluster, "good film", "program-2")
    teach(cluster, "another", "encoder-1")
    key = machine_label_key("good film", "endpoint-3")
    cluster.log(TopicPartition(MACHINE, 0)).append_batch([Outgoing(b"{rubbish", key)], 0)
    return cluster


def teach(cluster: MemoryCluster, text: str, teacher: str) -> None:
    scores = (Score("pos", 0.75), Score("neg", 0.25))
    made = MachineLabel(text=text, teacher=teacher, label="pos", scores=scores, labelled_at_ms=0)
    cluster.log(TopicPartition(MACHINE, 0)).append_batch(
        [Outgoing(encode_machine_label(made), machine_labels_key(made))], 0
    )


def on_machine_topic(cluster: MemoryCluster) -> tuple[set[bytes], set[str]]:
    """The keys that have a tombstone, and the keys of texts that are barred."""
    records = [record for number in range(2) for record in cluster.log(TopicPartition(MACHINE, number)).records]
    gone = {record.key for record in records if record.value is None}
    found = [decode_machine_label(record.value) for record in records if record.value not in (None, b"{rubbish")]
    return gone, {one.text_key for one in found if isinstance(one, BarredText)}


@pytest.mark.parametrize("arguments", [("1",), ("--text", "GOOD film")])
def test_an_erased_text_takes_along_what_every_teacher_said_of_it_and_is_barred(
    taught: MemoryCluster, arguments: tuple[str, ...]
) -> None:
    ended = run("erase", *arguments)
    assert ended.exit_code == 0
    assert "erased 4 labels of teachers on classify.machine-labels; barred 1 text" in ended.output
    gone, barred = on_machine_topic(taught)
    assert gone == {
        machine_label_key("good film", "encoder-1"),
        machine_label_key("Good   film", "encoder-1"),
        machine_label_key("good film", "program-2"),
        machine_label_key("good film", "endpoint-3"),
    }
    assert barred >= {text_key("good film"), text_key("Good   film"), text_ids(["good film"])[0]}
    left = [msgspec.json.decode(line) for line in run("list", "--machine", "--json").output.splitlines()]
    assert [row["text"] for row in left] == ["another"]


def test_a_text_that_nobody_labelled_is_barred_all_the_same(taught: MemoryCluster) -> None:
    ended = run("erase", "--text", "never seen")
    assert ended.exit_code == 1
    assert "erased 0 labels of teachers" in ended.output
    assert text_key("never seen") in on_machine_topic(taught)[1]


def test_labels_of_a_teacher_are_erased_where_no_person_gave_one(taught: MemoryCluster) -> None:
    ended = run("erase", "--text", "another")
    assert ended.exit_code == 0
    assert "text 1: classify.labels has no such label" in ended.output


def test_labels_of_teachers_are_listed_and_exported_with_teacher_and_score(
    taught: MemoryCluster, tmp_path: Path
) -> None:
    listed = run("list", "--machine", "--limit", 1).output
    assert "encoder-1" in listed
    assert "0.750" in listed
    assert "1 of 4 labels on classify.machine-labels; --skip 1 shows more" in listed
    assert "wrote 4 labels of classify.machine-labels" in run("export", "--machine", tmp_path / "taught.jsonl").output
    row = msgspec.json.decode((tmp_path / "taught.jsonl").read_bytes().splitlines()[0])
    assert row == {
        "text": "good film",
        "label": "pos",
        "score": 0.75,
        "teacher": "encoder-1",
        "scores": {"pos": 0.75, "neg": 0.25},
    }
    assert len(read_taught(tmp_path / "taught.jsonl")) == 4
    run("export", "--machine", tmp_path / "taught.csv")
    assert (tmp_path / "taught.csv").read_text().splitlines()[1] == "good film,pos,0.75,encoder-1,"
