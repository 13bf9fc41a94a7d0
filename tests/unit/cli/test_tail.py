"""Which answers `headrace tail` shows, and as what."""

from __future__ import annotations

import asyncio
import csv
import datetime as dt
import io
import json
from collections import Counter

import pytest
from typer.testing import CliRunner

from headrace import cli
from headrace.commands import answers
from headrace.commands.terminal import Terminal
from headrace.core.clock import SystemClock
from headrace.core.errors import UserError
from headrace.kafka.interface import Outgoing, TopicPartition, TopicSpec, UnknownTopicError
from headrace_schemas.codec import encode_request, encode_result, encode_review
from headrace_schemas.records import ClassifyRequest, ClassifyResult, Review, Status
from tests.support.memory_kafka import MemoryCluster
from tests.support.turned_loop import TurnedClock, run_turned

NOW = dt.datetime(2026, 1, 31, 12, tzinfo=dt.UTC)
TEXTS = ("rates rise", 'a "quoted", odd\ntext', "rain")
ANSWERS = [
    ClassifyResult(
        offset=offset, after=offset - 1, crc=0, status=Status.OK, version="v", label=label, score=0.5, id=id_
    )
    for offset, (label, id_) in enumerate((("money", "a"), ("odd", "b"), ("weather", "c")))
]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch):
    """The command on a twin with three requests and their answers; gives what it printed."""
    cluster = MemoryCluster(SystemClock())
    values = {
        "classify.requests": [encode_request(ClassifyRequest(text=text)) for text in TEXTS],
        "classify.results": [encode_result(answer) for answer in ANSWERS],
    }
    for topic in values:
        cluster.create_topic(TopicSpec(name=topic, partitions=1))
    monkeypatch.setattr("headrace.commands.common.cluster_of", lambda settings: cluster)
    monkeypatch.setattr(answers, "cluster_of", lambda settings: cluster)

    async def fill() -> None:
        for topic, records in values.items():
            await cluster.producer().send_batch(topic, 0, [Outgoing(value) for value in records])

    asyncio.run(fill())

    def command(*arguments: str) -> str:
        given = ["tail", "--from", "earliest", *arguments]
        result = CliRunner().invoke(cli.app, given, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    return command


def test_answers_come_with_the_texts_that_they_answer(run) -> None:
    rows = [json.loads(line) for line in run("--count", "3", "--texts").splitlines()]
    assert [(row["label"], row["text"]) for row in rows] == list(zip(("money", "odd", "weather"), TEXTS, strict=True))


def test_csv_reads_back_as_the_texts_were(run) -> None:
    rows = list(csv.DictReader(io.StringIO(run("--count", "3", "--texts", "--csv"))))
    assert [row["text"] for row in rows] == list(TEXTS)
    assert [row["offset"] for row in rows] == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        (("--label", "odd"), ["b"]),
        (("--label", "odd "), ["b"]),
        (("--id", "c"), ["c"]),
        (("--label", "money", "--label", "weather", "--count", "2"), ["a", "c"]),
    ],
)
def test_only_answers_of_a_label_or_an_id_are_shown(run, options: tuple[str, ...], ids: list[str]) -> None:
    count = () if "--count" in options else ("--count", "1")
    assert [json.loads(line)["id"] for line in run(*options, *count).splitlines()] == ids


@pytest.mark.parametrize(
    ("since", "moment"),
    [
        ("15m", NOW - dt.timedelta(minutes=15)),
        ("2h", NOW - dt.timedelta(hours=2)),
        ("999999999d", dt.datetime(1970, 1, 1, tzinfo=dt.UTC)),
        ("2026-01-31", "2026-01-31"),
    ],
)
def test_since_is_so_long_ago_or_a_time(since: str, moment: object) -> None:
    assert answers.moment_of(since, NOW) == moment


@pytest.mark.parametrize("options", [("--json", "--csv"), ("--since", "1h", "--from", "earliest"), ("--since", "soon")])
def test_what_contradicts_itself_is_refused_before_anything_connects(options: tuple[str, ...]) -> None:
    with pytest.raises(UserError):
        CliRunner().invoke(cli.app, ["tail", *options], catch_exceptions=False)


def test_a_program_that_gets_no_answers_is_told_once_what_is_waited_for() -> None:
    clock, told = TurnedClock(), []

    async def nothing():
        for _ in range(100):
            await clock.sleep(1)
            yield []

    async def read() -> None:
        async for _ in answers.with_a_word(nothing(), clock, told.append):
            pass

    run_turned(read())
    assert told == [answers.WAITING]


def test_reviews_are_shown_among_the_answers(run, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = answers.cluster_of(None)
    cluster.create_topic(TopicSpec(name="classify.reviews", partitions=1))
    review = Review(
        results="classify.results",
        partition=0,
        offset=2,
        label="weather",
        origin="teacher",
        by="encoder-1",
        reviewed_at_ms=1,
        id="c",
        score=0.75,
    )
    cluster.log(TopicPartition("classify.reviews", 0)).append_batch([Outgoing(encode_review(review), b"k")], 0)
    rows = [json.loads(line) for line in run("--count", "4", "--reviews").splitlines()]
    assert rows[3] == {
        "partition": 0,
        "offset": 2,
        "status": "review",
        "label": "weather",
        "reason": "teacher encoder-1",
        "score": 0.75,
        "id": "c",
    }
    assert [json.loads(line)["status"] for line in run("--count", "2", "--reviews", "--id", "c").splitlines()] == [
        "ok",
        "review",
    ]
    shown = io.StringIO()
    Terminal(file=shown, width=80).print(answers.table([review], Counter({"review": 1})))
    assert "by teacher encoder-1" in shown.getvalue()


def test_without_the_topic_of_reviews_tail_says_what_is_missing(run) -> None:
    with pytest.raises(UnknownTopicError, match=r"classify\.reviews"):
        run("--count", "1", "--reviews")
