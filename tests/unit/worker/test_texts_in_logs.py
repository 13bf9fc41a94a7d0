"""A text belongs to its sender: of what passes through a worker nothing is in its logs, metrics and messages."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from io import StringIO

import msgspec.msgpack
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from headrace.model.backends.interface import Answers
from headrace.process.logs import configure
from headrace.worker.metrics import WorkerMetrics
from headrace_schemas.dead_letters import PREFIX
from headrace_schemas.paths import RequestShape
from headrace_schemas.records import Status
from tests.support.models import LABELS, SumModel
from tests.support.simulation import TOPICS
from tests.support.worker_cluster import WorkerCluster, story

MARK = "mark7f3a"
JSON, MSGPACK, TEXT = b"application/json", b"application/msgpack", b"text/plain"
RUBBISH = [
    (f'{{"text": "{MARK}'.encode(), JSON),
    (f"{MARK} is no JSON".encode(), JSON),
    (f'"{MARK}"'.encode(), JSON),
    (f'["{MARK}"]'.encode(), JSON),
    (f'{{"text": {{"{MARK}": "{MARK}"}}}}'.encode(), JSON),
    (f'{{"text": "a", "id": ["{MARK}"]}}'.encode(), JSON),
    (f'{{"{MARK}": "{MARK}"}}'.encode(), JSON),
    (f'{{"text": "\\ud800{MARK}"}}'.encode(), JSON),
    (json.dumps({"text": MARK * 20_000}).encode(), JSON),
    (json.dumps({"text": "a", "id": MARK * 2_000}).encode(), JSON),
    (MARK.encode() + b"\xff", TEXT),
    (MARK.encode() * 20_000, TEXT),
    (msgspec.msgpack.encode({"text": MARK})[:-1], MSGPACK),
    (msgspec.msgpack.encode({"text": MARK.encode() + b"\xff"}), MSGPACK),
    (msgspec.msgpack.encode({MARK: {MARK: MARK}}), MSGPACK),
    (MARK.encode(), MSGPACK),
    (MARK.encode(), b"application/xml"),
]
SHAPES = [RequestShape(), RequestShape(text_path="body.0", id_path="ids.number", copy_fields={"shop": "shop.name"})]


class Quoting(SumModel):
    """Whatever goes wrong, its error quotes the texts."""

    def classify(self, texts: Sequence[bytes], ranking: int = 0) -> Answers:
        try:
            return super().classify(texts, ranking)
        except FloatingPointError as error:
            raise UnicodeDecodeError("utf-8", b" ".join(texts), 0, 1, "told to fail") from error


@pytest.fixture
def logged() -> Iterator[StringIO]:
    root = logging.getLogger()
    handlers, level, ours = root.handlers[:], root.level, logging.getLogger("headrace").level
    stream = StringIO()
    configure(stream, level="debug", form="json")
    yield stream
    root.handlers[:], root.level = handlers, level
    logging.getLogger("headrace").setLevel(ours)


@pytest.mark.parametrize("shape", SHAPES, ids=["our own records", "paths"])
def test_no_text_is_in_a_log_line_a_metric_or_the_message_of_a_dead_letter(logged, shape) -> None:
    registry = CollectorRegistry()

    @story
    async def play(world: WorkerCluster) -> None:
        world.start(
            metrics=WorkerMetrics(registry), backend=Quoting(poison=lambda text: b"poison" in text), shape=shape
        )
        for text in (f"{MARK} good", f"{MARK} poison", f"{MARK} good again"):
            value = {"text": text, "body": [text], "shop": {"name": "s"}}
            await world.publish_value(
                json.dumps(value).encode(), key=MARK.encode(), headers=(("tenant", MARK.encode()),)
            )
        for value, form in RUBBISH:
            await world.publish_value(value, headers=(("content-type", form),))
        answers = await world.answered(3 + len(RUBBISH))
        await world.stop("w0")
        assert [answer.status for answer in answers[:3]] == [Status.OK, Status.FAILED, Status.OK]
        assert {answer.status for answer in answers[3:]} == {Status.FAILED}
        letters = world.log(TOPICS.dead_letters)
        assert len(letters) == 1 + len(RUBBISH)
        ours = [value.decode() for one in letters for name, value in one.headers if name.startswith(PREFIX)]
        assert not [said for said in ours if MARK in said]
        assert MARK not in generate_latest(registry).decode()
        # An answer repeats what its reader needs to know it by, and no text.
        assert not [one for one in world.log(TOPICS.results) if MARK.encode() in one.value]

    play()
    assert "partition.resumed" in logged.getvalue()
    assert MARK not in logged.getvalue()


def test_a_model_that_breaks_on_everything_logs_no_text(logged) -> None:
    @story
    async def play(world: WorkerCluster) -> None:
        canaries = ((MARK.encode(), LABELS[0]),)
        world.start(backend=Quoting(poison=lambda _: True), canaries=canaries, breaker_threshold=1)
        await world.publish(f"{MARK} text")
        await world.until(lambda: "breaker.open" in logged.getvalue())
        await world.stop("w0")

    play()
    assert MARK not in logged.getvalue()
