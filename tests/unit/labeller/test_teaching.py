"""What `headrace teach` does between texts, a teacher and a place for labels."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.kafka.interface import Outgoing, TopicSpec, UnknownTopicError
from headrace.kafka.range_reader import read_topic
from headrace.labeller.teachers.interface import (
    Failure,
    Identity,
    SoftLabels,
    Spent,
    TeacherError,
    Tell,
    silent,
)
from headrace.labeller.teaching import (
    Asked,
    Bounds,
    Course,
    FilePlace,
    MemoryPlace,
    TopicPlace,
    each,
    ranked,
    teach,
)
from headrace.learning.data.taught import read_taught
from headrace_schemas.codec import decode_machine_label, encode_machine_label
from headrace_schemas.records import BarredText
from headrace_schemas.topics import barred_key, text_key
from tests.support.memory_kafka import MemoryCluster

TOPIC = "classify.machine-labels"
NO_BOUNDS = Bounds()


class Teacher:
    """Says `long` of texts of more than five characters; fails on those with a question mark; a text costs 1."""

    labels = ("long", "short")
    batch = 2

    def __init__(self, version: str = "made-1") -> None:
        self.identity = Identity("made", version, "prompt-1")
        self.asked: list[str] = []

    def within(self, texts: Sequence[str]) -> Spent:
        return Spent(cost=float(len(texts)))

    async def label(self, texts: Sequence[str], tell: Tell = silent) -> SoftLabels:
        self.asked += texts
        scores = np.array([[0.75, 0.25] if len(text) > 5 else [0.0, 1.0] for text in texts], np.float32)
        failures = {place: Failure("bad", "has a question") for place, text in enumerate(texts) if "?" in text}
        scores[list(failures)] = 0
        return SoftLabels(scores, failures, Spent(1, cost=float(len(texts))))

    async def close(self) -> None:
        """Nothing."""


def run(texts: Sequence[str], teacher: Teacher, place: object, bounds: Bounds = NO_BOUNDS) -> Course:
    return asyncio.run(teach(each(Asked(text) for text in texts), teacher, place, bounds))


def test_each_text_is_asked_about_once_and_failures_are_counted() -> None:
    teacher, place = Teacher(), MemoryPlace()
    course = run(["a text", "b", " ", "a text", "?", "", "c"], teacher, place)
    assert teacher.asked == ["a text", "b", "?", "c"]
    assert [one.asked.text for one in place.labels] == ["a text", "b", "c"]
    assert [score.label for score in place.labels[0].scores] == ["long", "short"]
    assert [score.label for score in place.labels[1].scores] == ["short"]
    assert (course.asked, course.labelled, course.known, course.empty) == (4, 3, 1, 2)
    assert course.failed == {"bad": 1}
    assert course.spent == Spent(2, cost=4.0)
    # The failed text's cost is borne by the one beside it.
    assert [one.cost for one in place.labels] == [1.0, 1.0, 2.0]


@given(st.integers(1, 8), st.integers(0, 8))
def test_neither_limit_nor_budget_is_passed(limit: int, money: int) -> None:
    teacher = Teacher()
    course = run([f"text {number}" for number in range(6)], teacher, MemoryPlace(), Bounds(limit, float(money)))
    assert len(teacher.asked) == min(6, limit, money)
    assert course.spent.cost <= money
    assert bool(course.ended) == (min(limit, money) < 6)


def test_a_teacher_that_labels_nothing_is_given_up() -> None:
    teacher = Teacher()
    with pytest.raises(TeacherError, match="given up") as given_up:
        run([f"?{number}" for number in range(100)], teacher, MemoryPlace())
    assert len(teacher.asked) == 6
    assert "has a question" in str(given_up.value)


def test_a_file_is_gone_on_with_and_no_text_is_asked_about_again(tmp_path: Path) -> None:
    file, teacher = tmp_path / "labels.jsonl", Teacher()
    run(["a text", "b"], teacher, FilePlace(file, "made-1"))
    # Killed in the middle of a line.
    with file.open("ab") as opened:
        opened.write(b'{"text": "c", "teach')
    course = run(["b", "c", "a text"], teacher, FilePlace(file, "made-1"))
    assert teacher.asked == ["a text", "b", "c"]
    assert course.known == 2
    taught = read_taught(file)
    assert taught.texts == ("a text", "b", "c")
    assert taught.origins == ("made-1",)
    np.testing.assert_allclose(taught.probabilities, [[0.75, 0.25], [0, 1], [0, 1]])


def test_a_file_of_something_else_or_of_another_teacher_is_left_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "labels.jsonl"
    run(["a text"], Teacher(), FilePlace(file, "made-1"))
    before = file.read_bytes()
    with pytest.raises(TeacherError, match="not mixed"):
        FilePlace(file, "made-2")
    assert file.read_bytes() == before
    for foreign in (b"a,b\n1,2\n", b'{"text": 1, "teacher": "made-1"}\n', b"\xff\xfe\n"):
        file.write_bytes(foreign)
        with pytest.raises(TeacherError, match="line 1"):
            FilePlace(file, "made-1")
        assert file.read_bytes() == foreign


@given(st.lists(st.floats(0.0625, 1, width=32), min_size=2, max_size=9))
def test_scores_are_ranked_and_none_is_lost(scores: list[float]) -> None:
    row = np.array(scores, np.float32)
    row /= row.sum()
    labels = [f"l{place}" for place in range(len(row))]
    found = ranked(row, labels)
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    assert sum(one.score for one in found) == pytest.approx(1, abs=1e-4)
    assert found[0].label == labels[int(row.argmax())]


async def records(cluster: MemoryCluster) -> list:
    return [decode_machine_label(record.value) async for record in read_topic(cluster, TOPIC, "labels") if record.value]


async def opened(cluster: MemoryCluster, teacher: Teacher) -> TopicPlace:
    place = TopicPlace(cluster, TOPIC, teacher.identity, lambda: 1234)
    await place.open(cluster)
    return place


async def test_labels_are_published_under_text_and_teacher_and_not_asked_again(memory_cluster: MemoryCluster) -> None:
    memory_cluster.create_topic(TopicSpec(name=TOPIC, partitions=2))
    teacher, other = Teacher(), Teacher("made-2")
    producer = memory_cluster.producer()
    await producer.start()
    barred = BarredText(text_key=text_key("erased"), barred_at_ms=1)
    await producer.send_many(TOPIC, [Outgoing(encode_machine_label(barred), barred_key("erased"))])
    texts = [Asked("a text", "t/0@1"), Asked("erased"), Asked("b")]
    place = await opened(memory_cluster, teacher)
    await teach(each(texts), teacher, place)
    await place.close()
    again = await opened(memory_cluster, teacher)
    await teach(each(texts), teacher, again)
    await again.close()
    second = await opened(memory_cluster, other)
    await teach(each(texts), other, second)
    await second.close()
    await producer.stop()
    assert teacher.asked == ["a text", "b"]
    assert other.asked == ["a text", "b"]
    found = [one for one in await records(memory_cluster) if not isinstance(one, BarredText)]
    assert sorted((one.text, one.teacher, one.label) for one in found) == [
        ("a text", "made-1", "long"),
        ("a text", "made-2", "long"),
        ("b", "made-1", "short"),
        ("b", "made-2", "short"),
    ]
    first = next(one for one in found if one.text == "a text" and one.teacher == "made-1")
    assert (first.source, first.prompt, first.labelled_at_ms, first.cost) == ("t/0@1", "prompt-1", 1234, 1.0)


async def test_a_topic_that_is_not_there_is_said(memory_cluster: MemoryCluster) -> None:
    with pytest.raises(UnknownTopicError, match=TOPIC):
        await opened(memory_cluster, Teacher())
