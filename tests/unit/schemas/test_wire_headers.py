"""Headers: what they may hold, and what an answer copies."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_schemas import (
    JSON,
    MSGPACK,
    TEXT,
    BadHeaderError,
    Headers,
    UnknownContentTypeError,
    content_type,
    copied_headers,
    read_attempt,
    read_timeout_ms,
)
from headrace_schemas.headers import MAX_ATTEMPT, MAX_TIMEOUT_MS

WHERE = "classify.requests[3]@42"
NAMES = st.sampled_from(["content-type", "timeout-ms", "headrace-attempt", "traceparent", "x"])
ANY_HEADERS = st.lists(st.tuples(NAMES, st.none() | st.binary(max_size=30)), max_size=4)


def test_without_headers_a_record_is_json_first_attempt_and_never_expires() -> None:
    assert content_type(()) == JSON
    assert read_timeout_ms(()) is None
    assert read_attempt(()) == 1
    assert copied_headers(()) == ()


def test_headers_that_are_not_ours_change_nothing() -> None:
    headers = [("Content-Type", b"text/plain"), ("x", None)]
    assert content_type(headers) == JSON
    assert read_timeout_ms(headers) is None
    assert read_attempt(headers) == 1
    assert copied_headers(headers) == ()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"application/json", JSON),
        (b"application/msgpack", MSGPACK),
        (b"application/x-msgpack", MSGPACK),
        (b"text/plain", TEXT),
        (b"text/plain; charset=utf-8", TEXT),
        (b'Text/Plain ;charset="UTF-8"; format=flowed', TEXT),
        (b"application/json;charset=utf8", JSON),
        (b"application/cloudevents+json", JSON),
        (b"Application/CloudEvents+JSON; charset=UTF-8", JSON),
        (b"application/vnd.acme.ticket.v2+json; profile=x; v=1", JSON),
        (b"text/json", JSON),
        (b"application/vnd.acme+msgpack", MSGPACK),
        (b"application/vnd.msgpack", MSGPACK),
    ],
)
def test_a_content_type_is_known_with_its_parameters(value: bytes, expected: str) -> None:
    assert content_type([("content-type", value)]) == expected


@pytest.mark.parametrize(
    "value",
    [
        b"application/xml",
        b"",
        None,
        b"\xff\xfe",
        b"json",
        b"text/plain/x",
        b"+json",
        b"a/+json",
        b"a/b/c+json",
        b"a/json+x",
    ],
)
def test_any_other_content_type_is_refused_and_shown(value: bytes | None) -> None:
    with pytest.raises(UnknownContentTypeError, match="is none of application/json") as raised:
        content_type([("content-type", value)], WHERE)
    assert (raised.value.record, raised.value.field) == (WHERE, "header content-type")


@pytest.mark.parametrize("value", [b"text/plain; charset=latin-1", b'application/x+json;CHARSET="Latin-1"'])
def test_a_charset_that_is_not_utf_8_is_named(value: bytes) -> None:
    with pytest.raises(UnknownContentTypeError, match="charset 'latin-1' is not read, only utf-8"):
        content_type([("content-type", value)], WHERE)


@pytest.mark.parametrize("number", [1, 250, MAX_TIMEOUT_MS])
def test_a_timeout_is_a_number_of_milliseconds(number: int) -> None:
    assert read_timeout_ms([("timeout-ms", b"%d" % number)]) == number


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"0",
        b"-1",
        b"+5",
        b"1.5",
        b"1e3",
        b" 5",
        b"5s",
        "٥".encode(),
        b"%d" % (MAX_TIMEOUT_MS + 1),
        b"9" * 9000,
    ],
)
def test_any_other_timeout_is_refused(value: bytes | None) -> None:
    with pytest.raises(BadHeaderError, match="whole number from 1 to") as raised:
        read_timeout_ms([("timeout-ms", value)], WHERE)
    assert (raised.value.record, raised.value.field) == (WHERE, "header timeout-ms")
    assert len(str(raised.value)) < 300


def test_an_attempt_is_a_bounded_number() -> None:
    assert read_attempt([("headrace-attempt", b"3")]) == 3
    for value in (b"0", b"%d" % (MAX_ATTEMPT + 1), None, b"three"):
        with pytest.raises(BadHeaderError, match="headrace-attempt"):
            read_attempt([("headrace-attempt", value)])


def test_of_headers_with_one_name_the_last_counts() -> None:
    headers = [("timeout-ms", b"bad"), ("content-type", b"bad"), ("timeout-ms", b"7"), ("content-type", b"text/plain")]
    assert read_timeout_ms(headers) == 7
    assert content_type(headers) == TEXT


def test_an_answer_copies_the_named_headers_in_their_order_with_repeats() -> None:
    headers: Headers = [("tenant", b"a"), ("x", b"b"), ("traceparent", b"c"), ("tenant", None)]
    assert copied_headers(headers) == (("tenant", b"a"), ("traceparent", b"c"), ("tenant", None))
    assert copied_headers(headers, {"x"}) == (("x", b"b"),)


@given(ANY_HEADERS)
def test_any_headers_are_read_or_refused_by_type(headers: list[tuple[str, bytes | None]]) -> None:
    for read in (content_type, read_timeout_ms, read_attempt):
        with suppress(UnknownContentTypeError, BadHeaderError):
            read(headers, WHERE)
