"""`headrace labels suspects` of a file and of the twin's topics, and what comes back of it by `labels publish`."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from pathlib import Path

import pytest
from rich.cells import cell_len
from typer.testing import CliRunner, Result

from headrace import cli
from headrace.client.labels import Labelled, publish_labels
from headrace.commands import labels, suspects, terminal
from headrace.core.cascade import RANDOM_SLICE
from headrace.core.clock import SystemClock
from headrace.core.errors import UserError
from headrace.kafka.interface import Outgoing, TopicPartition, TopicSpec
from headrace.learning.data.labels import read_labels
from headrace_schemas.codec import encode_machine_label, encode_models_record
from headrace_schemas.records import LabelRule, MachineLabel
from headrace_schemas.topics import machine_labels_key, models_key
from tests.support.memory_kafka import MemoryCluster

LABELS, MACHINE, MODELS = "classify.labels", "classify.machine-labels", "classify.models"
CARDS = [f"where is my card number {n}" for n in range(25)]
MONEY = [f"please refund the money of order {n}" for n in range(25)]
WRONG = "please refund the money of order 7, please refund the money of order 8"
HOSTILE = "=please refund \x1b[31m the\tmoney\r\nof order [bold]now"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, ["labels", *map(str, arguments)], catch_exceptions=False)


def pairs(*wrong: str) -> list[tuple[str, str]]:
    right = [(text, "card") for text in CARDS] + [(text, "refund") for text in MONEY]
    return right + [(text, "card") for text in wrong]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in pairs(WRONG, HOSTILE)))
    return file


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> MemoryCluster:
    cluster = MemoryCluster(SystemClock())
    for where in (labels, suspects):
        monkeypatch.setattr(where, "cluster_of", lambda settings: cluster)
    monkeypatch.setattr("headrace.commands.common.cluster_of", lambda settings: cluster)
    for topic in (LABELS, MACHINE, MODELS):
        cluster.create_topic(TopicSpec(name=topic, partitions=1))
    given = [Labelled(f"id-{place}", text, label) for place, (text, label) in enumerate(pairs())]
    given += [Labelled("=id", HOSTILE, "card", RANDOM_SLICE, 17), Labelled("odd", WRONG, "card", RANDOM_SLICE, None)]
    asyncio.run(publish_labels(cluster, LABELS, labels=given))
    return cluster


def suspected(*arguments: object) -> list[dict]:
    return [json.loads(line) for line in run("suspects", *arguments).stdout.splitlines()]


def test_the_rows_of_a_file_come_with_their_number_and_the_reason(file: Path) -> None:
    found = suspected(file)
    assert {row["text"] for row in found[:2]} == {WRONG, HOSTILE}
    assert {row["row"] for row in found[:2]} == {51, 52}
    for row in found[:2]:
        assert (row["label"], row["given"], row["likely"], row["source"]) == ("", "card", "refund", "suspect")
        assert row["margin"] == pytest.approx(row["likely_score"] - row["given_score"], abs=2e-6)
        assert row["why"].startswith(f"card {row['given_score']:.3f}, refund {row['likely_score']:.3f}")
    assert len(suspected(file, "--count", 1)) == 1


def test_what_a_training_would_leave_out_is_counted_and_not_doubted(file: Path) -> None:
    with file.open("a") as more:
        more.write(json.dumps({"text": " ", "label": "card"}) + "\n")
        more.write(json.dumps({"text": WRONG.upper(), "label": "card"}) + "\n")
        more.write(json.dumps({"text": "of its own", "label": "lonely"}) + "\n")
    said = run("suspects", file)
    assert "not looked at: 1 empty, 1 duplicate, 1 with a label of too few texts" in said.stderr
    assert "of 52 labels of" in said.stderr


@pytest.mark.parametrize("width", [80, 40])
def test_the_table_fits_and_obeys_no_text(file: Path, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setattr(suspects, "console", lambda: terminal.Terminal(width=width))
    shown = run("suspects", file, "--format", "table").stdout
    assert "\x1b" not in shown
    assert max(map(cell_len, shown.splitlines())) <= width
    assert "Labels that are given for another most often" in " ".join(shown.split())
    if width == 80:
        assert "52  card   0." in shown
        assert r"=please refund" in shown


def test_csv_and_every_format_of_a_tool_hold_the_text_and_csv_no_formula(file: Path, tmp_path: Path) -> None:
    printed = run("suspects", file, "--csv").stdout_bytes.decode()
    (row,) = [one for one in csv.DictReader(io.StringIO(printed, newline="")) if one["row"] == "52"]
    assert (row["text"], row["escaped"]) == (f"'{HOSTILE}", "text")
    for form in ("label-studio", "argilla"):
        out = tmp_path / f"{form}.json"
        assert run("suspects", file, "--format", form, "--out", out).exit_code == 0
        assert HOSTILE in {(one.get("data") or one["fields"])["text"] for one in json.loads(out.read_text())}


@pytest.mark.parametrize("name", ["corrected.csv", "corrected.jsonl"])
def test_a_corrected_label_takes_the_place_of_the_one_on_the_topic(
    cluster: MemoryCluster, tmp_path: Path, name: str
) -> None:
    out = tmp_path / name
    assert run("suspects", "--out", out).exit_code == 0
    if name.endswith("csv"):
        rows = list(csv.DictReader(io.StringIO(out.read_bytes().decode(), newline="")))
    else:
        rows = [json.loads(line) for line in out.read_text().splitlines()]
    for row in rows[:2]:
        row["label"] = "refund"
    with out.open("w", newline="") as file:
        if name.endswith("csv"):
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        else:
            file.write("".join(json.dumps(row) + "\n" for row in rows))
    assert "published 2 labels" in run("publish", out).stdout
    held = {one.id: one for one in asyncio.run(read_labels(cluster, LABELS))}
    assert len(held) == 52
    assert (held["=id"].text, held["=id"].label, held["odd"].label) == (HOSTILE, "refund", "refund")
    # A certificate takes what was labelled after a version for unseen, and this text is not.
    assert (held["=id"].source, held["=id"].labelled_at_ms) == (RANDOM_SLICE, 17)
    assert held["odd"].source == "suspect"


@pytest.mark.parametrize("tool", ["label-studio", "argilla"])
def test_what_a_tool_exports_takes_the_place_of_the_label_too(
    cluster: MemoryCluster, tmp_path: Path, tool: str
) -> None:
    file = tmp_path / "tasks.json"
    run("suspects", "--count", 2, "--format", tool, "--out", file)
    choice = {"from_name": "label", "to_name": "text", "type": "choices", "value": {"choices": ["refund"]}}
    done = [
        {**task, "annotations": [{"result": [choice], "was_cancelled": False}]}
        if tool == "label-studio"
        else {**task, "responses": {"label": [{"value": "refund", "user_id": "u"}]}}
        for task in json.loads(file.read_text())
    ]
    file.write_text(json.dumps(done))
    assert "published 2 labels" in run("publish", file).stdout
    held = {one.id: one.label for one in asyncio.run(read_labels(cluster, LABELS))}
    assert (len(held), held["=id"], held["odd"]) == (52, "refund", "refund")


def test_ids_of_a_file_that_was_published_with_ids_are_kept(cluster: MemoryCluster, tmp_path: Path) -> None:
    file, out = tmp_path / "own.csv", tmp_path / "corrected.jsonl"
    run("export", file)
    assert run("suspects", file, "--id-column", "id", "--out", out).exit_code == 0
    assert {json.loads(line)["replaces"] for line in out.read_text().splitlines()[:2]} == {"=id", "odd"}


def test_labels_are_doubted_as_the_rules_have_them(cluster: MemoryCluster) -> None:
    rule = LabelRule(name="default", label="card", becomes="refund", decided_at_ms=1)
    cluster.log(TopicPartition(MODELS, 0)).append_batch([Outgoing(encode_models_record(rule), models_key(rule))], 1)
    with pytest.raises(UserError, match="two of them at least"):
        run("suspects")


def test_labels_of_teachers_are_doubted_where_that_is_asked_for(cluster: MemoryCluster) -> None:
    said = [MachineLabel(text=text, teacher="encoder-1", labelled_at_ms=1, label=label) for text, label in pairs(WRONG)]
    records = [Outgoing(encode_machine_label(one), machine_labels_key(one)) for one in said]
    cluster.log(TopicPartition(MACHINE, 0)).append_batch(records, 1)
    first = suspected("--machine")[0]
    assert (first["text"], first["given"], first["likely"], first["replaces"]) == (WRONG, "card", "refund", "")


@pytest.mark.parametrize(
    "arguments",
    [
        ("rows.jsonl", "--machine"),
        ("--id-column", "id"),
        ("rows.jsonl", "--json", "--csv"),
        ("rows.jsonl", "--json", "--format", "csv"),
        ("rows.jsonl", "--out", "tasks.json"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_read(arguments: tuple[str, ...]) -> None:
    with pytest.raises(UserError):
        run("suspects", *arguments)


def test_a_topic_without_labels_says_so(cluster: MemoryCluster) -> None:
    with pytest.raises(UserError, match=r"classify\.machine-labels holds no label"):
        run("suspects", "--machine")
