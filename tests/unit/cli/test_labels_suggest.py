"""`headrace labels suggest` on the twin, and what comes back of it by `labels publish`."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from headrace import cli
from headrace.client.labels import Labelled, publish_labels
from headrace.commands import labels, suggest
from headrace.core.cascade import RANDOM_SLICE
from headrace.core.clock import SystemClock
from headrace.core.errors import UserError
from headrace.kafka.interface import NotAuthorizedError, Outgoing, TopicPartition, TopicSpec
from headrace.learning.data.machine_labels import erasure_of
from headrace_schemas.codec import decode_label, decode_review, encode_machine_label, encode_request, encode_result
from headrace_schemas.records import BarredText, ClassifyRequest, ClassifyResult, Score, Status
from headrace_schemas.topics import machine_labels_key, review_key
from tests.support.memory_kafka import MemoryCluster
from tests.support.memory_kafka.cluster import MemoryProducer
from tests.support.memory_kafka.consumer import MemoryConsumer

MACHINE = "classify.machine-labels"
REQUESTS, RESULTS, LABELS, REVIEWS = "classify.requests", "classify.results", "classify.labels", "classify.reviews"
TEXTS = ("where is my card", "Where  IS my card", "i want my money back", "labelled already", "hello", "late one")
SCORES = ((0.52, 0.48), (0.55, 0.45), (0.9, 0.1), (0.5, 0.5), (0.3, 0.2), (0.6, 0.4))
LABELS_GIVEN = ("card", "card", "refund", "card", None, "refund")


def answer(offset: int, label: str | None, scores: tuple[float, float], version: str = "v1") -> Outgoing:
    names = ("refund", "card") if label == "refund" else ("card", "refund")
    result = ClassifyResult(
        offset=offset,
        after=offset - 1,
        crc=0,
        status=Status.OK,
        version=version,
        label=label,
        score=scores[0],
        ranking=tuple(Score(label=name, score=score) for name, score in zip(names, scores, strict=True)),
        id=f"id-{offset}",
    )
    return Outgoing(encode_result(result))


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> MemoryCluster:
    cluster = MemoryCluster(SystemClock())
    for command in (labels, suggest):
        monkeypatch.setattr(command, "cluster_of", lambda settings: cluster)
    monkeypatch.setattr("headrace.commands.erase.cluster_of", lambda settings: cluster)
    for topic in (REQUESTS, RESULTS, LABELS, REVIEWS, "other.results"):
        cluster.create_topic(TopicSpec(name=topic, partitions=1))
    now_ms = SystemClock().now_ms()
    values = {
        REQUESTS: [Outgoing(encode_request(ClassifyRequest(text=text))) for text in TEXTS],
        RESULTS: [answer(place, label, SCORES[place]) for place, label in enumerate(LABELS_GIVEN)],
        "other.results": [answer(place, "card", (0.8, 0.2), "v2") for place in range(len(TEXTS))],
    }
    for topic, records in values.items():
        cluster.log(TopicPartition(topic, 0)).append_batch(records, now_ms)
    asyncio.run(publish_labels(cluster, LABELS, labels=[Labelled("x", "Labelled  already", "card")]))
    return cluster


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, ["labels", *map(str, arguments)], catch_exceptions=False)


def rows(*arguments: object) -> list[dict]:
    return [json.loads(line) for line in run("suggest", *arguments).stdout.splitlines()]


def published(cluster: MemoryCluster) -> list:
    return [decode_label(record.value) for record in cluster.log(TopicPartition(LABELS, 0)).records[1:]]


def reviews(cluster: MemoryCluster) -> list:
    records = cluster.log(TopicPartition(REVIEWS, 0)).records
    found = [decode_review(record.value) for record in records]
    assert [record.key for record in records] == [review_key(one.results, one.partition, one.offset) for one in found]
    return found


def test_the_least_margin_comes_first_once_a_text_and_without_labelled_ones(cluster: MemoryCluster) -> None:
    shown = rows()
    assert [(row["at"], row["answered"]) for row in shown] == [
        ("0@0", "card"),
        ("0@4", ""),
        ("0@5", "refund"),
        ("0@2", "refund"),
    ]
    assert [row["text"] for row in shown][:2] == [TEXTS[0], TEXTS[4]]
    assert {row["label"] for row in shown} == {""}
    assert shown[0]["why"] == "card 0.520 and refund 0.480 are near"
    assert shown[0]["id"] == "id-0"
    assert len(rows("--count", 2)) == 2


def test_each_queue_has_its_own_texts_and_source(cluster: MemoryCluster) -> None:
    assert [(row["at"], row["source"]) for row in rows("--queue", "abstained")] == [("0@4", "abstained")]
    differ = rows("--queue", "disagreement", "--beside", "other.results")
    assert [row["at"] for row in differ] == ["0@2", "0@5"]
    assert differ[0]["why"] == "v1 says refund, v2 says card"
    drawn = rows("--queue", "random", "--count", 3)
    assert {row["source"] for row in drawn} == {RANDOM_SLICE}
    assert len(drawn) == 3


def bar(cluster: MemoryCluster, *texts: str) -> None:
    """As an erasure leaves them."""
    cluster.create_topic(TopicSpec(name=MACHINE, partitions=1))
    barred = [BarredText(text_key=key, barred_at_ms=0) for key in erasure_of(texts, []).barred]
    records = [Outgoing(encode_machine_label(one), machine_labels_key(one)) for one in barred]
    cluster.log(TopicPartition(MACHINE, 0)).append_batch(records, 1)


def test_a_text_that_was_erased_is_suggested_no_more_however_it_is_spelled(cluster: MemoryCluster) -> None:
    bar(cluster, "HELLO", "i want my money back")
    shown = run("suggest")
    assert [json.loads(line)["at"] for line in shown.stdout.splitlines()] == ["0@0", "0@5"]
    assert "2 left out that were erased" in shown.stderr
    unbarred = [Outgoing(None, b"barred/" + key.encode()) for key in erasure_of(["HELLO"], []).barred]
    cluster.log(TopicPartition(MACHINE, 0)).append_batch(unbarred, 2)
    assert [row["at"] for row in rows()] == ["0@0", "0@4", "0@5"]


def test_who_may_not_read_what_was_erased_is_told(cluster: MemoryCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    bar(cluster, "hello")
    partitions_of = MemoryConsumer.partitions_of

    async def refuse(self, topic):
        if topic == MACHINE:
            raise NotAuthorizedError("no right to Read")
        return await partitions_of(self, topic)

    monkeypatch.setattr(MemoryConsumer, "partitions_of", refuse)
    shown = run("suggest")
    assert "no right to Read" in shown.stderr
    assert len(shown.stdout.splitlines()) == 4


def test_since_and_last_bound_what_is_looked_at(cluster: MemoryCluster) -> None:
    assert [row["at"] for row in rows("--last", 2)] == ["0@4", "0@5"]
    ended = run("suggest", "--since", "2999-01-01")
    assert ended.exit_code == 1
    assert "--since earliest looks at all" in ended.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("--queue", "disagreement"),
        ("--beside", "other.results"),
        ("--queue", "disagreement", "--beside", RESULTS),
        ("--out", "tasks.json"),
        ("--out", "tasks.csv", "--format", "table"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_read(cluster: MemoryCluster, arguments) -> None:
    with pytest.raises(UserError):
        run("suggest", *arguments)


def test_a_table_fits_a_narrow_terminal(cluster: MemoryCluster) -> None:
    shown = run("suggest", "--format", "table").stdout
    assert "0@0" in shown
    assert "(no label)" in shown


def test_a_filled_csv_comes_back_as_labels_and_as_reviews_of_what_had_no_label(
    cluster: MemoryCluster, tmp_path: Path
) -> None:
    file = tmp_path / "tasks.csv"
    assert run("suggest", "--queue", "random", "--out", file).exit_code == 0
    filled = list(csv.DictReader(io.StringIO(file.read_text())))
    for row in filled[:-1]:
        row["label"] = "card"
    with file.open("w", newline="") as out:
        writer = csv.DictWriter(out, filled[0])
        writer.writeheader()
        writer.writerows(filled)
    said = run("publish", file)
    assert f"published {len(filled) - 1} labels" in said.stdout
    assert "left out: 1 empty" in said.stdout
    sent = published(cluster)
    assert {one.text for one in sent} == {row["text"] for row in filled[:-1]}
    assert {one.source for one in sent} == {RANDOM_SLICE}
    assert all(one.labelled_at_ms for one in sent)
    without = [row["at"] for row in filled[:-1] if not row["answered"]]
    assert [(f"{one.partition}@{one.offset}", one.label, one.origin, one.id) for one in reviews(cluster)] == [
        (at, "card", "person", "id-4") for at in without
    ]
    assert "0@4" in {row["at"] for row in filled}


def test_json_lines_may_be_piped_back(cluster: MemoryCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    filled = [{**row, "label": "card"} for row in rows()]
    data = io.BytesIO("".join(json.dumps(row) + "\n" for row in filled).encode())
    monkeypatch.setattr(labels, "standard_input", lambda: io.BufferedReader(data))
    run("publish", "-")
    assert len(published(cluster)) == len(filled)
    assert [(one.offset, one.results) for one in reviews(cluster)] == [(4, RESULTS)]


@pytest.mark.parametrize("tool", ["label-studio", "argilla"])
def test_what_a_tool_exports_of_the_tasks_comes_back(cluster: MemoryCluster, tmp_path: Path, tool: str) -> None:
    file = tmp_path / "tasks.json"
    run("suggest", "--format", tool, "--out", file)
    tasks = json.loads(file.read_text())
    choice = {"from_name": "label", "to_name": "text", "type": "choices", "value": {"choices": ["card"]}}
    done = [
        {**task, "annotations": [{"result": [choice], "was_cancelled": False}]}
        if tool == "label-studio"
        else {**task, "responses": {"label": [{"value": "card", "user_id": "u"}]}}
        for task in tasks
    ]
    file.write_text(json.dumps(done))
    assert "published 4 labels" in run("publish", file).stdout
    assert {(one.label, one.source) for one in published(cluster)} == {("card", "margin")}
    assert [one.offset for one in reviews(cluster)] == [4]


def test_without_a_topic_or_right_for_reviews_the_labels_are_published(
    cluster: MemoryCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "tasks.jsonl"
    file.write_text(json.dumps({"text": "hello", "label": "card", "at": "0@4"}))
    send_many = MemoryProducer.send_many

    async def refuse(self, topic, records, *, partition=None):
        if topic == REVIEWS:
            raise NotAuthorizedError("no right to write")
        return await send_many(self, topic, records, partition=partition)

    monkeypatch.setattr(MemoryProducer, "send_many", refuse)
    ended = run("publish", file)
    assert ended.exit_code == 0
    assert "published 1 label to" in ended.stdout
    assert "1 review was not sent: no right to write" in ended.stderr


def test_an_export_is_restored_row_by_row_as_it_was(cluster: MemoryCluster, tmp_path: Path) -> None:
    given = [
        Labelled("a", "same words", "card", RANDOM_SLICE, 17),
        Labelled("b", "Same words!", "refund", None, None),
        Labelled("c", 'odd "one",\nreally', "card", "margin", None, "ana", "=refund", "v1"),
        Labelled("=1+1", "=HYPERLINK(1)\r\n-2", "@home", "margin", None),
    ]
    asyncio.run(publish_labels(cluster, LABELS, labels=given))
    kept = {one["id"]: one for one in map(json.loads, run("list", "--json").stdout.splitlines()[:-1])}
    for name in ("labels.csv", "labels.jsonl"):
        file = tmp_path / name
        run("export", file)
        run("erase", *kept)
        assert "published 5 labels" in run("publish", file, "--restore").stdout
        after = {one["id"]: one for one in map(json.loads, run("list", "--json").stdout.splitlines()[:-1])}
        assert after == kept
    with pytest.raises(UserError, match="--id-column"):
        run("publish", file, "--restore", "--id-column", "id")
