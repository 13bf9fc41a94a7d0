"""What annotation tools export is read as labels, and what they import says all that comes back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.files.annotations import Task, argilla_records, label_studio_tasks, place_of, read_annotations
from headrace.files.table import Reading

CHOICE = {"id": "yrSY", "type": "choices", "origin": "manual", "to_name": "text", "from_name": "label"}


def studio(*labels: list[str] | None, data: dict | None = None, cancelled: bool = False, **more: object) -> dict:
    """A task as Label Studio exports it; None is an annotation without a result."""
    return {
        "id": 7,
        "annotations": [
            {
                "id": number,
                "completed_by": 1,
                "result": [] if choices is None else [{**CHOICE, "value": {"choices": choices}}],
                "was_cancelled": cancelled,
                "ground_truth": False,
                "created_at": "2026-03-09T22:16:08.728353Z",
                "updated_at": "2026-03-09T22:16:09.728378Z",
                "lead_time": 4.288,
                "unique_id": "b4d8",
                "task": 7,
            }
            for number, choices in enumerate(labels)
        ],
        "file_upload": "a1-tasks.json",
        "drafts": [],
        "predictions": [3],
        "data": {"text": "where is my card", **(data or {})},
        "meta": {},
        "created_at": "2026-03-09T21:52:49.513742Z",
        "updated_at": "2026-03-09T22:16:08.746926Z",
        "project": 83,
        **more,
    }


def argilla(*values: object, metadata: dict | None = None, status: str | None = None) -> dict:
    """A record as Argilla's ``to_json`` writes it."""
    user = {"user_id": "5b0c2f4e-9a1f-4b64-9b43-4f1a9a7f3f9e"} | ({} if status is None else {"status": status})
    return {
        "id": "0@12",
        "fields": {"text": "where is my card"},
        "metadata": metadata or {},
        "suggestions": {"label": {"value": "refund", "score": 0.41, "agent": "v1"}},
        "responses": {"label": [{"value": value, **user} for value in values]} if values else {},
        "vectors": {},
        "_server_id": "d4f7a1d2-5ab4-4a0f-8a0e-1c1f6c8b2a11",
    }


def read(folder: Path, *rows: dict, lines: bool = False):
    file = folder / "export.json"
    file.write_text("\n".join(map(json.dumps, rows)) if lines else json.dumps(rows, indent=2))
    found = read_annotations(file, Reading())
    return None if found is None else list(found)


@pytest.mark.parametrize("lines", [True, False])
def test_an_export_of_label_studio_is_read_with_its_time(tmp_path: Path, lines: bool) -> None:
    told = {"at": "1@12", "source": "random-slice", "id": "order-7"}
    (one,) = read(tmp_path, studio(["card"], data=told), lines=lines)
    assert (one.text, one.label, one.source, one.at, one.id) == (
        "where is my card",
        "card",
        "random-slice",
        (1, 12),
        "order-7",
    )
    assert one.labelled_at_ms == 1_773_094_569_728
    assert not one.answered


@pytest.mark.parametrize(
    ("task", "label"),
    [
        (studio(["card"], ["card"], ["refund"]), "card"),
        (studio(["card"], ["refund"]), ""),
        (studio(["card", "refund"]), ""),
        (studio(["card"], cancelled=True), ""),
        (studio(None), ""),
        (studio(), ""),
        (studio(["card"], annotations=[{"result": [{"type": "choices", "value": 3}]}, 5, {"result": "x"}]), ""),
    ],
)
def test_the_label_of_most_annotators_counts_and_none_where_they_differ(tmp_path: Path, task: dict, label: str) -> None:
    assert [one.label for one in read(tmp_path, task)] == [label]


def test_of_several_questions_the_one_called_label_counts(tmp_path: Path) -> None:
    task = studio(["card"])
    task["annotations"][0]["result"].insert(0, {**CHOICE, "from_name": "sure", "value": {"choices": ["yes"]}})
    assert [one.label for one in read(tmp_path, task)] == ["card"]


@pytest.mark.parametrize("lines", [True, False])
def test_an_export_of_argilla_is_read(tmp_path: Path, lines: bool) -> None:
    told = {"at": "0@12", "source": "margin", "answered": "refund"}
    (one,) = read(tmp_path, argilla("card", metadata=told), lines=lines)
    assert (one.text, one.label, one.source, one.at, one.answered) == (
        "where is my card",
        "card",
        "margin",
        (0, 12),
        True,
    )


@pytest.mark.parametrize(
    ("record", "label"),
    [
        (argilla("card", "card", "refund"), "card"),
        (argilla("card", "refund"), ""),
        (argilla("card", status="discarded"), ""),
        (argilla("card", status="submitted"), "card"),
        (argilla(["card", "refund"]), ""),
        (argilla(), ""),
    ],
)
def test_what_argillas_annotators_left_is_no_label(tmp_path: Path, record: dict, label: str) -> None:
    assert [one.label for one in read(tmp_path, record)] == [label]


@pytest.mark.parametrize("row", [{"text": "a", "label": "b"}, {"data": "a", "annotations": []}, {"fields": {}}])
def test_any_other_file_is_no_export(tmp_path: Path, row: dict) -> None:
    assert read(tmp_path, row) is None


TASKS = st.builds(
    Task,
    at=st.builds("{}@{}".format, st.integers(0, 9), st.integers(0, 10**9)),
    text=st.text(st.characters(exclude_categories=("Cs",)), min_size=1),
    version=st.just("v1"),
    why=st.just("near"),
    source=st.sampled_from(["margin", "random-slice"]),
    answered=st.none() | st.just("refund"),
    score=st.none() | st.floats(0, 1),
    id=st.none() | st.text("abc", min_size=1),
    blind=st.booleans(),
)


@given(st.lists(TASKS, min_size=1, max_size=4))
def test_what_goes_to_a_tool_comes_back_with_its_place_source_and_id(tmp_path_factory, tasks: list[Task]) -> None:
    folder = tmp_path_factory.mktemp("tasks")
    given_back = {
        "label studio": [{**one, "annotations": studio(["card"])["annotations"]} for one in label_studio_tasks(tasks)],
        "argilla": [
            {**one, "responses": {"label": [{"value": "card", "user_id": "u"}]}} for one in argilla_records(tasks)
        ],
    }
    for rows in given_back.values():
        for task, one in zip(tasks, read(folder, *rows), strict=True):
            assert (one.text, one.label, one.source, one.id) == (task.text, "card", task.source, task.id)
            assert one.at == place_of(task.at)
            assert one.answered == (task.answered is not None)


@given(TASKS)
def test_a_blind_task_shows_no_answer_anywhere(task: Task) -> None:
    for row in (*label_studio_tasks([task]), *argilla_records([task])):
        shown = json.dumps(row)
        assert ("refund" in shown) == (task.answered is not None and not task.blind and "refund" not in task.text)


@pytest.mark.parametrize(
    ("given_text", "place"),
    [("3@12", (3, 12)), ("@1", None), ("1@", None), ("1@-1", None), ("1@²", None), (12, None), ("9@" + "1" * 30, None)],
)
def test_a_place_is_a_partition_and_an_offset(given_text: object, place: object) -> None:
    assert place_of(given_text) == place
