"""What other programs write into a value: what is read all the same, and that a refusal names its cause."""

from __future__ import annotations

import gzip
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_schemas import JSON, BadBytesError, BadTypeError, ClassifyRequest, WireError, compile_shape
from headrace_schemas.paths import RequestShape

PLAIN = b'{"text":"It broke"}'
SHAPES = [RequestShape(), RequestShape(id_path="number")]
"""Ours is decoded into its type, any other generically."""


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("front", [b"\xef\xbb\xbf", b"\0\0\0\0\x01", b"\0\0\x01\x86\xa1", b"\0\x7b\x22\x22\x22"])
def test_json_behind_a_byte_order_mark_or_confluents_frame_is_read(shape: RequestShape, front: bytes) -> None:
    assert compile_shape(shape)(front + PLAIN, JSON) == ClassifyRequest(text="It broke")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("value", "cause"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"\0\0\0\0\x07\x10It broke", "Confluent's schema registry"),
        (b"\0", "Confluent's schema registry"),
        (b"\x03\0" + bytes(16) + PLAIN, "AWS Glue"),
        (gzip.compress(PLAIN, mtime=0), "compressed by gzip"),
        (b"\x28\xb5\x2f\xfd\x04", "compressed by Zstandard"),
        (PLAIN.decode().encode("utf-16"), "UTF-16"),
        (PLAIN.decode().encode("utf-16-le"), "UTF-16"),
        (PLAIN.decode().encode("utf-16-be"), "UTF-16"),
        (PLAIN.decode().encode("utf-32-le"), "UTF-32"),
        (PLAIN.decode().encode("utf-32-be"), "UTF-32"),
        ('{"text":"für"}'.encode("latin-1"), "not UTF-8"),
        (b'{"text":"cut \\ud83d"}', "half a surrogate pair"),
        (b'{"text":"cut \\ude00 off"}', "half a surrogate pair"),
        (b'{"text":"a","x":NaN}', "NaN"),
        (b'{"text":"a","x":-Infinity}', "NaN"),
        (b"{'text': 'a'}", "double quotes"),
        (PLAIN + b"\n" + PLAIN, "one record holds one request"),
        (b'{"text":"two\nlines"}', "line break"),
        (b"It broke", "content-type: text/plain"),
        (b"\x81\xa4text\xa1a", "application/msgpack"),
        (b"\xef\xbb\xbf" + PLAIN + PLAIN, "one record holds one request"),
    ],
)
def test_a_value_that_is_no_json_is_refused_with_its_cause(shape: RequestShape, value: bytes, cause: str) -> None:
    with pytest.raises(BadBytesError) as raised:
        compile_shape(shape)(value, JSON)
    assert cause in raised.value.message
    assert "broke" not in raised.value.message


@pytest.mark.parametrize("shape", SHAPES)
def test_a_fault_behind_the_last_byte_is_refused_too(shape: RequestShape) -> None:
    for value in (
        b'"',
        b'"\\',
        b'"\\u',
        b'"\\ud83d\\',
        b'"\\ud83d\\u',
        b"[",
        b"{",
        b'{"a',
        b"-",
        b"\0" * 6,
        b'"\\ud83d\\udc0',
    ):
        with pytest.raises(WireError):
            compile_shape(shape)(value, JSON)


@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_wrong_behind_a_frame_is_named_as_without_it(shape: RequestShape) -> None:
    with pytest.raises(BadTypeError, match="text: Expected `str`"):
        compile_shape(shape)(b'\0\0\0\0\x01{"text":7}', JSON)


@pytest.mark.parametrize("shape", SHAPES)
def test_of_a_key_that_is_there_twice_the_last_counts(shape: RequestShape) -> None:
    assert compile_shape(shape)(b'{"text":"first","text":"last"}', JSON).text == "last"


def test_a_cloud_event_in_structured_mode_is_read_by_a_path() -> None:
    event = b'{"specversion":"1.0","id":"e-7","source":"/shop","type":"t","data":{"text":"It broke"}}'
    shape = RequestShape(text_path="data.text")
    assert compile_shape(shape)(event, JSON) == ClassifyRequest(text="It broke", id="e-7")


@given(
    st.sampled_from([b"\0", b"\xef\xbb\xbf", b"\0\0\0\0\x01", b"\x1f\x8b", b"\xff\xfe", b"{", b'{"text":"']),
    st.binary(),
)
def test_any_bytes_behind_any_mark_are_read_or_refused_by_type(front: bytes, rest: bytes) -> None:
    for shape in SHAPES:
        with suppress(WireError):
            compile_shape(shape)(front + rest, JSON)
