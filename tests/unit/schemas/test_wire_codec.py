"""Bytes to records and back: what is equal, what is refused, and that nothing else is ever raised."""

from __future__ import annotations

from collections.abc import Callable
from types import UnionType
from typing import Any, Union, get_args, get_origin

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from headrace_schemas import (
    JSON,
    MAX_ID_BYTES,
    MAX_TEXT_BYTES,
    MSGPACK,
    TEXT,
    BadBytesError,
    BadTypeError,
    ClassifyRequest,
    ClassifyResult,
    IdTooLargeError,
    LabelledText,
    MissingFieldError,
    MissingTextError,
    Status,
    TextTooLargeError,
    UnknownContentTypeError,
    WireError,
    decode_dead_letter,
    decode_label,
    decode_models_record,
    decode_request,
    decode_result,
    encode_dead_letter,
    encode_label,
    encode_models_record,
    encode_request,
    encode_result,
)
from headrace_schemas.records import DeadLetter, ModelsRecord

WHERE = "classify.requests[3]@42"
FORMATS = st.sampled_from([JSON, MSGPACK])
WORDS = st.text(st.characters(codec="utf-8"), max_size=200)
INTEGERS = st.integers(-(2**63), 2**63 - 1)
DEEP = 5000

PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    str: WORDS,
    int: INTEGERS,
    float: st.floats(allow_nan=False, allow_infinity=False),
}
DECODERS = [decode_request, decode_result, decode_label, decode_models_record, decode_dead_letter]


def records(kind: Any) -> st.SearchStrategy[Any]:
    """Values of a type, records with every field set: what the wire can hold, so 64-bit integers and finite floats."""
    if kind in PLAIN:
        return PLAIN[kind]
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in {Union, UnionType}:
        return st.one_of([records(argument) for argument in arguments])
    if origin is dict:
        return st.dictionaries(*map(records, arguments), max_size=3)
    if origin is tuple:
        rows = st.lists(records(arguments[0]), max_size=3).map(tuple)
        return rows if arguments[-1] is ... else st.tuples(*map(records, arguments))
    if issubclass(kind, msgspec.Struct):
        return st.builds(kind, **{field.name: records(field.type) for field in msgspec.structs.fields(kind)})
    return st.from_type(kind)


def refusal(decode: Callable[..., object], *arguments: object, **named: object) -> WireError | None:
    """The error with which ``decode`` refuses; None when it does not; any other exception fails the test."""
    try:
        decode(*arguments, **named)
    except WireError as error:
        return error
    return None


def almost(record: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Records whose fields may hold anything at all: nearer to the decoders than random bytes get."""
    anything = st.recursive(
        st.none() | st.booleans() | INTEGERS | st.floats() | WORDS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
        max_leaves=5,
    )
    return st.fixed_dictionaries({}, optional={name: st.just(value) | anything for name, value in record.items()})


@given(records(ClassifyRequest), FORMATS)
def test_a_request_comes_back_as_it_was_sent(request: ClassifyRequest, content_type: str) -> None:
    assert decode_request(encode_request(request, content_type), content_type) == request


@given(WORDS)
def test_a_bare_text_comes_back_as_it_was_sent(text: str) -> None:
    value = encode_request(ClassifyRequest(text=text), TEXT)
    assert value == text.encode()
    assert decode_request(value, TEXT) == ClassifyRequest(text=text)


@given(records(ClassifyResult), FORMATS)
def test_a_result_comes_back_as_it_was_sent(result: ClassifyResult, content_type: str) -> None:
    assert decode_result(encode_result(result, content_type), content_type) == result


@given(records(LabelledText), FORMATS)
def test_a_labelled_text_comes_back_as_it_was_sent(label: LabelledText, content_type: str) -> None:
    assert decode_label(encode_label(label, content_type), content_type) == label


@given(records(ModelsRecord), FORMATS)
def test_a_record_of_models_comes_back_as_the_type_that_it_was(record: ModelsRecord, content_type: str) -> None:
    assert decode_models_record(encode_models_record(record, content_type), content_type) == record


@given(records(DeadLetter), FORMATS)
def test_a_dead_letter_comes_back_with_its_bytes(letter: DeadLetter, content_type: str) -> None:
    assert decode_dead_letter(encode_dead_letter(letter, content_type), content_type) == letter


def test_a_null_value_is_a_tombstone_where_the_topic_is_compacted() -> None:
    assert decode_label(None) is None
    assert decode_models_record(None) is None


@pytest.mark.parametrize("decode", DECODERS)
@given(value=st.binary(max_size=200), content_type=st.sampled_from([JSON, MSGPACK, TEXT]))
@example(value=b"", content_type=JSON)
@example(value=b'{"text":"a","x":' + b"[" * DEEP, content_type=JSON)
@example(value=b"\x82\xa4text\xa1a\xa1x" + b"\x91" * DEEP, content_type=MSGPACK)
@example(value=b"\xdd\xff\xff\xff\xff\x01", content_type=MSGPACK)
def test_any_bytes_decode_or_raise_a_wire_error(decode: Callable[..., object], value: bytes, content_type: str) -> None:
    error = refusal(decode, value, content_type, where=WHERE)
    assert error is None or (error.record == WHERE and error.field and error.message)


NEARLY: list[tuple[Callable[..., object], dict[str, Any]]] = [
    (decode_request, {"text": "a", "id": "b"}),
    (decode_result, {"offset": 1, "after": 0, "crc": 7, "status": "ok", "version": "v", "score": 0.5}),
    (decode_result, {"ranking": [{"label": "a", "score": 0.5}], "lost": {"first": 1, "last": 2, "reason": "r"}}),
    (decode_models_record, {"kind": "alias", "name": "n", "alias": "a", "version": "v", "moved_at_ms": 1}),
]


@given(st.sampled_from(NEARLY).flatmap(lambda case: st.tuples(st.just(case[0]), almost(case[1]))), FORMATS)
def test_any_field_of_any_type_decodes_or_raises_a_wire_error(
    case: tuple[Callable[..., object], dict[str, Any]], content_type: str
) -> None:
    decode, fields = case
    encode = msgspec.json.encode if content_type == JSON else msgspec.msgpack.encode
    error = refusal(decode, encode(fields), content_type)
    assert error is None or error.code in {"bad-type", "missing-field", "missing-text", "bad-bytes"}


@pytest.mark.parametrize(
    ("value", "content_type", "error", "field"),
    [
        (None, JSON, MissingTextError, "value"),
        (None, TEXT, MissingTextError, "value"),
        (b"{}", JSON, MissingTextError, "text"),
        (b"\x80", MSGPACK, MissingTextError, "text"),
        (b"", JSON, BadBytesError, "value"),
        (b"", MSGPACK, BadBytesError, "value"),
        (b'{"text":"a"', JSON, BadBytesError, "value"),
        (b'{"text":"a"} b', JSON, BadBytesError, "value"),
        (b'{"text":"\xff"}', JSON, BadBytesError, "value"),
        (b'{"text":"\xed\xa0\x80"}', JSON, BadBytesError, "value"),
        (b'{"text":"\\ud800 alone"}', JSON, BadBytesError, "value"),
        (b'{"text":"\\udc00 alone"}', JSON, BadBytesError, "value"),
        (b"\x81\xa4text\xa3\xed\xa0\x80", MSGPACK, BadBytesError, "value"),
        (b"\xff", TEXT, BadBytesError, "value"),
        (b"\xed\xa0\x80", TEXT, BadBytesError, "value"),
        (b'{"text":7}', JSON, BadTypeError, "text"),
        (b'{"text":null}', JSON, BadTypeError, "text"),
        (b'{"text":"a","id":7}', JSON, BadTypeError, "id"),
        (b"\x81\xa4text\xc4\x01a", MSGPACK, BadTypeError, "text"),
        (b'["text"]', JSON, BadTypeError, "value"),
        (b'{"text":"a","x":' + b"[" * DEEP, JSON, BadBytesError, "value"),
        (b'{"text":"a"}', "application/xml", UnknownContentTypeError, "content-type"),
    ],
)
def test_a_bad_request_is_refused_by_type_record_and_field(
    value: bytes | None, content_type: str, error: type[WireError], field: str
) -> None:
    with pytest.raises(WireError) as raised:
        decode_request(value, content_type, where=WHERE)
    assert (type(raised.value), raised.value.record, raised.value.field) == (error, WHERE, field)
    assert str(raised.value).startswith(f"{WHERE}: {field}: ")


def test_a_missing_field_inside_another_is_named_by_its_path() -> None:
    value = b'{"offset":1,"after":0,"crc":1,"status":"ok","version":"v","lost":{"first":1,"last":2}}'
    with pytest.raises(MissingFieldError) as raised:
        decode_result(value)
    assert raised.value.field == "lost.reason"


def test_a_wrong_status_is_named_with_its_field() -> None:
    with pytest.raises(BadTypeError, match="status: Invalid enum value 'done'"):
        decode_result(b'{"offset":1,"after":0,"crc":1,"status":"done","version":"v"}')


def test_bare_text_is_no_format_of_a_result() -> None:
    with pytest.raises(UnknownContentTypeError, match="'text/plain' is no format of a result"):
        decode_result(b"ok", TEXT)
    with pytest.raises(UnknownContentTypeError, match="'text/plain' is no format of a labelled text"):
        encode_label(LabelledText(text="a", label="b"), TEXT)


def test_a_null_result_is_an_error_because_results_are_never_compacted() -> None:
    with pytest.raises(MissingFieldError, match="must be a result"):
        decode_result(None)


@pytest.mark.parametrize("content_type", [JSON, MSGPACK, TEXT])
@pytest.mark.parametrize("character", ["a", "é", "電", "📈", "\\", "\n"])
def test_the_limit_counts_bytes_of_utf8_whatever_the_encoding_adds(content_type: str, character: str) -> None:
    size = len(character.encode())
    fits = ClassifyRequest(text=character * (MAX_TEXT_BYTES // size))
    assert decode_request(encode_request(fits, content_type), content_type) == fits
    over = ClassifyRequest(text=fits.text + "x" * (MAX_TEXT_BYTES % size + 1))
    with pytest.raises(TextTooLargeError, match=f"text: has {MAX_TEXT_BYTES + 1} bytes of UTF-8"):
        encode_request(over, content_type)
    value = encode_request(over, content_type, limit=MAX_TEXT_BYTES + 1)
    with pytest.raises(TextTooLargeError, match=f"text: has {MAX_TEXT_BYTES + 1} bytes of UTF-8"):
        decode_request(value, content_type)


def test_a_small_limit_of_ones_own_is_kept() -> None:
    assert decode_request(b'{"text":"1234"}', limit=4).text == "1234"
    with pytest.raises(TextTooLargeError):
        decode_request(b'{"text":"12345"}', limit=4)


def test_escapes_in_json_do_not_count_towards_the_limit() -> None:
    assert decode_request(b'{"text":"' + b"\\u00e9" * 10 + b'"}', limit=20).text == "é" * 10


def test_an_oversized_label_text_is_refused() -> None:
    value = encode_label(LabelledText(text="12345", label="a"))
    assert decode_label(value, limit=5) is not None
    with pytest.raises(TextTooLargeError):
        decode_label(value, limit=4)


def test_an_id_is_bounded_because_every_answer_repeats_it() -> None:
    fits = ClassifyRequest(text="a", id="é" * (MAX_ID_BYTES // 2))
    assert decode_request(encode_request(fits)) == fits
    value = msgspec.json.encode({"text": "a", "id": "é" * (MAX_ID_BYTES // 2) + "x"})
    with pytest.raises(IdTooLargeError, match=f"has {MAX_ID_BYTES + 1} bytes"):
        decode_request(value)


def test_a_lone_surrogate_can_not_be_sent() -> None:
    for content_type in (JSON, MSGPACK, TEXT):
        with pytest.raises(BadBytesError):
            encode_request(ClassifyRequest(text="\ud800"), content_type)


def test_bare_text_refuses_an_id_rather_than_lose_it() -> None:
    with pytest.raises(BadTypeError, match="no place for an id"):
        encode_request(ClassifyRequest(text="a", id="b"), TEXT)


def test_encoding_to_an_unknown_content_type_is_refused() -> None:
    result = ClassifyResult(offset=1, after=0, crc=0, status=Status.OK, version="v")
    with pytest.raises(UnknownContentTypeError, match="application/xml"):
        encode_result(result, "application/xml")


def test_an_error_can_be_told_its_record_later() -> None:
    with pytest.raises(BadTypeError) as raised:
        decode_request(b'{"text":7}')
    assert raised.value.record == ""
    named = raised.value.at(WHERE)
    assert isinstance(named, BadTypeError)
    assert (named.record, named.field, named.message) == (WHERE, raised.value.field, raised.value.message)
