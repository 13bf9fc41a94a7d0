"""The compiled writer's dead letters are those of the plain function and of aiokafka's own builder, byte for byte."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from headrace.kafka.aio.producer import PackedBuilder
from headrace.kafka.columns import Columns
from headrace.kafka.dead_letters import DeadLetterSettings, dead_letter, keep_whole, keeping, open_letter
from headrace.kafka.interface import Discarded, FetchedRecord, Outgoing
from headrace.security.keys import SEALING, PrivateKey, public_key_text
from headrace.worker.dead_letter_records import Failed, Failure, write_dead_letters
from headrace_schemas.dead_letters import MAX_MESSAGE_BYTES, PREFIX, dead_letter_from_record
from headrace_schemas.errors import place
from headrace_schemas.headers import ATTEMPT
from headrace_schemas.topics import MAX_REQUEST_BYTES
from tests.unit.worker.test_answer_records import NOW_MS, built

KEY = PrivateKey(bytes(range(32)), "test.pem")
KEEPS = {
    "whole": DeadLetterSettings(),
    "cut": DeadLetterSettings(keep="cut", cut_bytes=9),
    "nothing": DeadLetterSettings(keep="nothing"),
}
FAILURES = [
    Failure("decode", "bad-bytes", "value: is no JSON"),
    Failure("decode", "bad-bytes", "value: é\udcff"),
    Failure("decode", "missing-text", ""),
    Failure("infer", "model-failed", "the model failed on this text alone"),
]
TEXT = st.text(st.characters(codec="utf-8"), max_size=6)
NAMES = TEXT | st.sampled_from([ATTEMPT, f"{PREFIX}offset", f"{PREFIX}message", f"{PREFIX}mine"])
VALUES = st.none() | st.binary(max_size=6) | st.sampled_from([b"2", b"07", b"999999"])
RECORDS = st.builds(
    FetchedRecord,
    st.just("classify.requests"),
    st.just(3),
    st.integers(0, 2**62),
    st.integers(-(2**63), 2**63 - 1),
    st.none() | st.binary(max_size=70),
    st.none() | st.binary(max_size=70),
    st.lists(st.tuples(NAMES, VALUES), max_size=3).map(tuple),
    st.none() | st.just(Discarded(2_000_000, 7)),
)


def record(**other: object) -> FetchedRecord:
    parts = {"topic": "t", "partition": 0, "offset": 7, "timestamp": NOW_MS, "key": None, "value": b"v", "headers": ()}
    return FetchedRecord(**{**parts, **other})  # type: ignore[arg-type]


@pytest.mark.parametrize("keep", KEEPS)
@given(
    st.lists(st.tuples(RECORDS, st.integers(-1, len(FAILURES) - 1)), min_size=1, max_size=12),
    st.none() | TEXT,
    st.integers(1, 3000),
)
@example([(record(value=b"v" * 70_000), 0), (record(key=b"k"), 1)] * 3, "v1", 1 << 16)
@example([(record(value=b"v" * (MAX_REQUEST_BYTES + 1)), 0), (record(), 0)], "v1", 1 << 19)
@example([(record(timestamp=-(2**63)), 0), (record(timestamp=-1), 0), (record(timestamp=0, offset=0), 0)], None, 1)
@example([(record(), 2)] * 9000, "v1", 1 << 19)
# Of one letter the headers are nearly a megabyte, and the others take no room for as many.
@example([(record(headers=(("h", b"v" * 900_000),)), 2), *[(record(), 2)] * 400], "v1", 1 << 19)
def test_the_letters_are_those_of_the_plain_function_and_of_aiokafka_s_builder(keep, made, version, batch_bytes):
    keeps = keeping(KEEPS[keep])
    faults = np.array([fault for _, fault in made], np.int32)
    places = np.flatnonzero(faults >= 0)
    if not len(places):
        return
    records = [one for one, _ in made]
    failed = Failed(Columns.of(records), places, faults[places], FAILURES)
    packed = write_dead_letters(failed, version=version, keep=keeps, batch_bytes=batch_bytes)
    letters = [plain(records[at], FAILURES[faults[at]], version, keeps) for at in places.tolist()]
    batches = []
    for batch in packed.batches:
        builder = PackedBuilder(batch)
        builder._time_ms = NOW_MS
        builder._set_producer_state(7, 1, 3)
        batches.append(bytes(builder._build()))
    assert batches == built(letters, batch_bytes, (7, 1, 3))
    assert list(packed) == letters


def plain(one: FetchedRecord, failure: Failure, version: str | None, keep: object) -> Outgoing:
    where = place(one.topic, one.partition, one.offset)
    return dead_letter(
        one,
        stage=failure.stage,
        error=failure.code,
        message=f"{where}: {failure.message}",
        version=version,
        keep=keep,  # type: ignore[arg-type]
    )


def test_an_encrypted_letter_is_opened_to_the_record_that_failed() -> None:
    settings = DeadLetterSettings(keep="encrypted", public_key=public_key_text(SEALING, KEY.public()))
    one = record(value=b"a secret", headers=(("tenant", b"shop"),))
    failed = Failed(Columns.of([one]), np.zeros(1, np.int64), np.zeros(1, np.int32), FAILURES)
    (letter,) = write_dead_letters(failed, version="v1", keep=keeping(settings), batch_bytes=1 << 19)
    assert b"a secret" not in (letter.value or b"")
    opened = open_letter(dead_letter_from_record(letter.key, letter.value, letter.headers), KEY)
    assert (opened.value, opened.headers) == (b"a secret", (("tenant", b"shop"),))


def test_a_long_message_is_cut_and_names_its_record() -> None:
    one = record(topic="t" * 249, offset=2**62)
    failed = Failed(
        Columns.of([one]), np.zeros(1, np.int64), np.zeros(1, np.int32), [Failure("infer", "x", "é" * 3000)]
    )
    (sent,) = write_dead_letters(failed, version=None, keep=keep_whole, batch_bytes=1 << 19)
    message = dead_letter_from_record(sent.key, sent.value, sent.headers).message
    assert message.startswith(f"{place(one.topic, 0, one.offset)}: é")
    assert MAX_MESSAGE_BYTES - 30 < len(message.encode()) <= MAX_MESSAGE_BYTES
