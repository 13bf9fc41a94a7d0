"""Requests larger than any may be: compressed records that grow when they are read, huge keys, headers and copies."""

from __future__ import annotations

import zlib

import msgspec
import pytest

from headrace.kafka.dead_letters import DeadLetterSettings, dead_letter, keep_whole, keeping
from headrace.kafka.interface import Discarded, FetchedRecord, TopicPartition
from headrace.learning.data.validation import Fault, KnownLabels
from headrace.security.keys import SEALING, make_key, public_key_text
from headrace.trainer.labels import refusal, take_labels
from headrace.worker.partitions import partition as partitions
from headrace_schemas.dead_letters import NOTHING, VALUE_BYTES, dead_letter_from_record, kept
from headrace_schemas.headers import CONTENT_TYPE, MSGPACK, TENANT
from headrace_schemas.paths import MAX_COPIED_BYTES, RequestShape
from headrace_schemas.records import Status
from headrace_schemas.topics import MAX_ANSWER_BYTES, MAX_REQUEST_BYTES
from tests.support.simulation import TOPICS
from tests.support.worker_cluster import story

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


def test_a_request_whose_value_was_discarded_is_answered_failed_with_its_key_and_its_crc_and_resumed_behind():
    @story
    async def play(world):
        await world.publish("before")
        log = world.cluster.log(REQUESTS)
        parts = (b"customer-7", b"", ((TENANT, b"shop"),), Discarded(300_000_000, 4242))
        log.records.append(FetchedRecord(*REQUESTS, log.end, world.clock.now_ms(), *parts))
        log.end += 1
        log.wake()
        world.start()
        answers = await world.answered(2)
        assert (answers[1].status, answers[1].reason, answers[1].crc) == (Status.FAILED, "request-too-large", 4242)
        assert world.log(TOPICS.results)[1].key == b"customer-7"
        (letter,) = world.log(TOPICS.dead_letters)
        found = dead_letter_from_record(letter.key, letter.value, letter.headers)
        assert (kept(letter.headers), found.key, found.headers) == (NOTHING, b"customer-7", ((TENANT, b"shop"),))
        assert dict(letter.headers)[VALUE_BYTES] == b"300000000"
        # Who takes over compares this crc with that of the record at its offset.
        await world.stop("w0")
        world.start("w1")
        await world.publish("behind")
        assert (await world.answered(3))[2].status is Status.OK

    play()


@pytest.mark.parametrize("keep", ["whole", "cut", "encrypted", "nothing"])
def test_a_dead_letter_never_passes_a_discarded_value_off_as_whole(keep, tmp_path):
    public = public_key_text(SEALING, make_key(tmp_path / "key.pem")) if keep == "encrypted" else None
    settings = DeadLetterSettings(keep=keep, public_key=public)
    record = FetchedRecord(*REQUESTS, 3, 5, b"k", b"", (), Discarded(300_000_000, 4242))
    letter = dead_letter(record, stage="decode", error="request-too-large", message="m", keep=keeping(settings))
    assert (kept(letter.headers), letter.value, dict(letter.headers)[VALUE_BYTES]) == (NOTHING, None, b"300000000")
    assert letter.key == (b"k" if keep in {"whole", "cut"} else None)


def test_a_label_whose_value_was_discarded_is_refused_and_no_tombstone():
    record = FetchedRecord("classify.labels", 0, 0, 5, b"id-1", b"", (), Discarded(300_000_000, 4242))
    known = KnownLabels()
    (fault,) = take_labels([record], known, snapped_end=0, max_text_bytes=100)
    assert fault.code == "request-too-large"


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
    monkeypatch.setattr(partitions, "WAITING_BYTES", 300_000)

    @story
    async def play(world):
        world.start(waiting_per_partition=4096, max_batch_bytes=50_000)
        await world.running()
        for _ in range(10):
            await world.publish_value(b'{"text":"' + b"x" * 90_000 + b'"}')
        most, largest = 0, 0
        while len(world.log(TOPICS.results)) < 10:
            (partition,) = world.workers["w0"]._assignment.partitions.values()
            held = sum(len(record.value) for part in partition.queue.waiting for record in part.records)
            assert partition.queue.bytes == held
            most, largest = max(most, len(partition.queue)), max(largest, held)
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
