"""Each bomb has one outcome, and a good request before and behind it has its answer. How long each takes is for
tests/benchmarks/text_bombs.py to say."""

from __future__ import annotations

import pytest

from headrace.kafka.interface import FetchedRecord
from headrace.model.backends.interface import Backend, open_backend
from headrace_schemas.codec import MAX_TEXT_BYTES, decode_result
from headrace_schemas.paths import RequestShape
from headrace_schemas.records import Status
from headrace_schemas.topics import MAX_ANSWER_BYTES
from tests.support.bombs import BOMBS, RAISED, Bomb, headers_of
from tests.support.networks import random_artifact
from tests.support.staged_batches import staged


@pytest.fixture(scope="module")
def backend() -> Backend:
    return open_backend("cpu", random_artifact(1, max_tokens=256))


@pytest.mark.parametrize("limit", [MAX_TEXT_BYTES, RAISED])
@pytest.mark.parametrize("bomb", BOMBS, ids=[name for name, *_ in BOMBS])
def test_a_bomb_is_answered_or_fails_alone_and_its_neighbours_are_answered(backend: Backend, bomb: Bomb, limit: int):
    _, make, content_type, by_default, when_raised = bomb
    expected = by_default if limit == MAX_TEXT_BYTES else when_raised
    good = b'{"text":"the good film"}'
    records = [
        FetchedRecord("requests", 0, offset, 0, None, value, headers)
        for offset, value, headers in ((5, good, ()), (6, make(), headers_of(content_type)), (7, good, ()))
    ]
    (encoded,) = staged(records, backend, shape=RequestShape(max_text_bytes=limit)).encoded
    answers = [decode_result(answer.value) for answer in encoded.answers]
    assert [answer.status for answer in answers] == [
        Status.OK,
        Status.OK if expected is None else Status.FAILED,
        Status.OK,
    ]
    assert answers[1].reason == expected
    assert answers[0].label == answers[2].label
    assert answers[0].score == answers[2].score
    assert len(encoded.dead_letters) == (expected is not None)
    assert all(len(letter.value or b"") < MAX_ANSWER_BYTES for letter in encoded.dead_letters)
