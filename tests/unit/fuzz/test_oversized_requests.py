"""Requests larger than any may be: compressed records that grow when they are read, huge keys, headers and copies."""

from __future__ import annotations

import zlib

import msgspec
import pytest

from headrace.inference import fetch
from headrace.kafka.interface import FetchedRecord, TopicPartition
from headrace.kafka.keeping import keep_whole
from headrace.training.trainer.judging import refusal
from headrace.training.trainer.known_labels import Fault
from headrace_schemas.dead_letters import NOTHING, dead_letter_from_record, kept
from headrace_schemas.headers import CONTENT_TYPE, MSGPACK, TENANT
from headrace_schemas.paths import MAX_COPIED_BYTES, RequestShape
from headrace_schemas.records import Status
from headrace_schemas.topics import MAX_ANSWER_BYTES, MAX_REQUEST_BYTES
from tests.support.simulation import TOPICS
from tests.support.world import story

REQUESTS = TopicPartition(TOPICS.requests, 0)
HUGE = b"x" * (MAX_REQUEST_BYTES + 1)


def size(record) -> int:
    headers = sum(len(name) + len(value or b"") for name, value in record.headers)
    return len(record.key or b"") + len(record.value or b"") + headers


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        (HUGE, {}),
        (b'{"text":"a"}', {"key": HUGE}),
        (b'{"text":"a"}', {"headers": ((TENANT, HUGE),)}),
        (None, {"headers": (("name" * MAX_REQUEST_BYTES, None),)}),
        (None, {"headers": (("😀" * (MAX_REQUEST_BYTES // 3), None),)}),
    ],
)
def test_a_request_that_no_topic_could_carry_on_fails_alone_and_only_its_size_is_kept(value, parts):
    @story
    async def play(world):
        # As when a record is small while it is compressed, or a team's own topic takes larger ones.
        world.cluster.log(REQUESTS)._config["max.message.bytes"] = str(8 * MAX_REQUEST_BYTES)
        await world.publish("before")
        await world.publish_value(value, **parts)
        await world.publish("behind")
        world.start()
        answers = await world.answered(3)
        assert [answer.status for answer in answers] == [Status.OK, Status.FAILED, Status.OK]
        assert answers[1].reason == "request-too-large"
        assert answers[1].crc == zlib.crc32(value or b"")
        answer, (letter,) = world.log(TOPICS.results)[1], world.log(TOPICS.dead_letters)
        assert max(size(answer), size(letter)) < 4096
        found = dead_letter_from_record(letter.key, letter.value, letter.headers)
        assert (found.offset, found.error, found.value) == (1, "request-too-large", None)
        assert str(MAX_REQUEST_BYTES) in found.message

    play()


@story
async def test_a_copied_field_can_not_blow_up_an_answer(world):
    shape = RequestShape(text_path="text", id_path="number", copy_fields={"nulls": "nulls", "small": "small"})
    value = msgspec.msgpack.encode({"text": "a", "nulls": [None] * 600_000, "small": "s" * MAX_COPIED_BYTES})
    world.start(shape=shape)
    await world.publish_value(value, headers=((CONTENT_TYPE, MSGPACK.encode()),))
    (answer,) = await world.answered(1)
    assert answer.status is Status.OK
    (record,) = world.log(TOPICS.results)
    assert dict(record.headers) == {"small": b"s" * MAX_COPIED_BYTES}
    assert size(record) < MAX_ANSWER_BYTES


def test_a_queue_of_large_requests_is_bounded_by_their_bytes(monkeypatch):
    monkeypatch.setattr(fetch, "WAITING_BYTES", 300_000)

    @story
    async def play(world):
        world.start(waiting_per_partition=4096, max_batch_bytes=50_000)
        await world.running()
        for _ in range(10):
            await world.publish_value(b'{"text":"' + b"x" * 90_000 + b'"}')
        most, largest = 0, 0
        while len(world.log(TOPICS.results)) < 10:
            (partition,) = world.workers["w0"]._assignment.partitions.values()
            held = sum(len(request.record.value) for request in partition.waiting)
            assert partition.waiting_bytes == held
            most, largest = max(most, len(partition.waiting)), max(largest, held)
            await world.clock.sleep(0.001)
        assert 0 < most < 10
        # One chunk of the fetch may come past the limit.
        assert largest <= 600_000
        assert {answer.reason for answer in world.answers()} == {"text-too-large"}

    play()


def test_a_label_that_no_topic_could_carry_on_is_refused_without_its_record():
    record = FetchedRecord("labels", 0, 7, 0, b"id", HUGE, ((TENANT, b"a"),))
    letter = refusal(record, Fault("bad-bytes", "value: no JSON"), keep_whole)
    assert size(letter) < 4096
    assert kept(letter.headers) == NOTHING
    found = dead_letter_from_record(letter.key, letter.value, letter.headers)
    assert (found.offset, found.error, found.key, found.value) == (7, "bad-bytes", None, None)
