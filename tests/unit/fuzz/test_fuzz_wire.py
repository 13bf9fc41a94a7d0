"""Whatever the bytes, headers and paths are: a record comes out, or an error of the wire that says what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headrace_schemas.codec import (
    decode_api_key,
    decode_dead_letter,
    decode_label,
    decode_machine_label,
    decode_models_record,
    decode_request,
    decode_result,
    decode_review,
    decode_teaching_record,
    decode_text_lease,
    decode_usage,
    decode_workers_record,
)
from headrace_schemas.dead_letters import (
    MAX_MESSAGE_BYTES,
    PREFIX,
    dead_letter_from_record,
    dead_letter_headers,
    replay_headers,
)
from headrace_schemas.errors import WireError
from headrace_schemas.headers import (
    ATTEMPT,
    CONTENT_TYPE,
    JSON,
    MAX_ATTEMPT,
    MAX_TIMEOUT_MS,
    MSGPACK,
    TENANT,
    TEXT,
    TIMEOUT_MS,
    TRACEPARENT,
    content_type,
    copied_headers,
    read_attempt,
    read_timeout_ms,
)
from headrace_schemas.paths import MAX_COPIED_BYTES, RequestShape, compile_copy, compile_shape
from headrace_schemas.records import DeadLetter
from tests.support.mutations import examples, hostile

OF_WORKERS = ("attempt", "max-batch", "results-claim")
# Claims and attempts of older versions lie there too.
OF_MODELS = (
    *("attempt", "certificate", "label-rule", "model-alias", "model-version", "results-claim", "threshold-raise"),
    *("training", "training-order", "verdict"),
)
MODELS = [value for kind in OF_MODELS for value in examples(kind)]
WORKERS = [value for kind in OF_WORKERS for value in examples(kind)]
DECODERS: dict[str, tuple[Callable[..., Any], list[bytes]]] = {
    "request": (decode_request, examples("classify-request")),
    "result": (decode_result, examples("classify-result")),
    "label": (decode_label, examples("labelled-text")),
    "models": (decode_models_record, MODELS),
    "workers": (decode_workers_record, WORKERS),
    "machine labels": (decode_machine_label, [*examples("machine-label"), *examples("barred-text")]),
    "teaching": (decode_teaching_record, [*examples("spending"), *examples("labeller-state")]),
    "api key": (decode_api_key, examples("api-key")),
    "usage": (decode_usage, examples("usage")),
    "text lease": (decode_text_lease, examples("text-lease")),
    "review": (decode_review, examples("review")),
    "dead letter": (decode_dead_letter, examples("dead-letter")),
}
CODES = {None, *(kind.code for kind in WireError.__subclasses__()), "missing-text"}
FORMATS = st.sampled_from([JSON, MSGPACK, TEXT])
names = st.one_of(
    st.sampled_from([CONTENT_TYPE, TIMEOUT_MS, TRACEPARENT, TENANT, ATTEMPT, f"{PREFIX}code", f"{PREFIX}offset"]),
    st.text(max_size=8),
)
values = st.one_of(
    st.none(),
    st.binary(max_size=24),
    st.sampled_from([b"", b"1", b"0", b"-1", b"9" * 400, "٣".encode(), b"text/plain", b"text/plain; charset=latin-1"]),
)
headers = st.lists(st.tuples(names, values), max_size=6).map(tuple)


T = TypeVar("T")
THOROUGH = settings(max_examples=200, deadline=None)


def refused(call: Callable[[], T], taken: Callable[[T], object] = lambda _: None) -> str | None:
    """The code of the error of the wire that ``call`` raises; None when ``taken`` was given a result."""
    try:
        result = call()
    except WireError as error:
        return error.code
    taken(result)
    return None


@pytest.mark.parametrize("name", DECODERS)
@THOROUGH
@given(data=st.data(), kind=FORMATS)
def test_a_decoder_gives_a_record_or_an_error_of_the_wire(name, data, kind):
    decode, originals = DECODERS[name]
    value = data.draw(st.one_of(st.none(), hostile(originals)))
    assert refused(lambda: decode(value, kind, where="here")) in CODES


@THOROUGH
@given(headers)
@example(((TIMEOUT_MS, b"5"), (TIMEOUT_MS, None)))
@example(tuple((f"h{number}", b"x" * 1000) for number in range(1000)))
@example(((CONTENT_TYPE, b"\xff\xfe;charset"),))
def test_headers_are_understood_or_refused_by_name(found):
    for read, least, most in ((read_timeout_ms, 1, MAX_TIMEOUT_MS), (read_attempt, 1, MAX_ATTEMPT)):
        numbers: list[int | None] = []
        assert refused(lambda read=read: read(found), numbers.append) in (None, "bad-header")
        assert all(number is None or least <= number <= most for number in numbers)
    kinds: list[str] = []
    assert refused(lambda: content_type(found), kinds.append) in (None, "unknown-content-type")
    assert set(kinds) <= {JSON, MSGPACK, TEXT}
    assert {name for name, _ in copied_headers(found)} <= {TRACEPARENT, TENANT}


@THOROUGH
@given(st.one_of(st.none(), st.binary()), st.one_of(st.none(), st.binary()), headers, st.text(), st.integers(1, 9))
def test_a_dead_letter_of_any_record_reads_back_and_can_be_published_again(key, value, found, message, attempt):
    letter = DeadLetter(
        topic="t", partition=1, offset=2, timestamp_ms=-1, stage="decode", error="bad-bytes", message=message,
        attempt=attempt, key=key, value=value, headers=found,
    )  # fmt: skip
    read = dead_letter_from_record(key, value, dead_letter_headers(letter))
    own = tuple(header for header in found if not header[0].startswith(PREFIX))
    assert (read.key, read.value, read.headers, read.attempt) == (key, value, own, attempt)
    assert len(read.message.encode()) <= MAX_MESSAGE_BYTES
    assert read_attempt(replay_headers(read)) == attempt + 1


@THOROUGH
@given(st.one_of(st.none(), st.binary()), st.one_of(st.none(), st.binary()), headers)
def test_any_record_on_the_dead_letters_topic_is_a_dead_letter_or_refused(key, value, found):
    assert refused(lambda: dead_letter_from_record(key, value, found)) in (None, "bad-header")


SHAPE = RequestShape(
    text_path="ticket.body",
    id_path="items.0.id",
    copy_fields={"whole": "ticket", "first": "items.0", "far": "items.999999999"},
)
DOCUMENTS = [
    b'{"ticket":{"body":"a","n":1.5},"items":[{"id":7},null,true]}',
    b"\x82\xa6ticket\x81\xa4body\xa1a\xa5items\x91\x81\xa2id\x07",
    b"\x82\xa6ticket\x82\xa4body\xa1a\x93\x01\x02\x03\xc0\xa5items\x91\x81\xa2id\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
]


@THOROUGH
@given(st.one_of(st.none(), hostile(DOCUMENTS)), FORMATS, headers)
@example(b'{"ticket":{"body":"a"},"items":[{"id":' + b"9" * 5000 + b"}]}", JSON, ())
@example(b'{"ticket":{"body":"a","deep":' + b"[" * 900 + b"]" * 900 + b"}}", JSON, ())
@example(b'{"ticket":{"body":"a","deep":' + b"[" * 500_000, JSON, ())
@example(b'{"ticket":{"body":"a"},"ticket":{"body":5}}', JSON, ())
@example(b"\x82\xa6ticket\x81\xa4body\xc4\x01a\xc0\xc0", MSGPACK, ())
@example(b"\x81\xa6ticket\x82\xa4body\xa1a\xa1x\xd6\xff\xff\xff\xff\xff", MSGPACK, ())
@example(b"\xdd\xff\xff\xff\xff" * 1000, MSGPACK, ())
def test_a_document_of_a_team_s_own_gives_a_text_or_an_error_and_copies_that_stay_small(value, kind, found):
    assert refused(lambda: compile_shape(SHAPE)(value, kind), lambda request: request.text.encode()) in CODES
    copied = compile_copy(SHAPE)(value, kind, found)
    for name, header in copied[len(copied_headers(found)) :]:
        assert name in SHAPE.copy_fields
        assert header is not None
        assert len(header) <= MAX_COPIED_BYTES
