"""Requests as they are: text, id and copied fields inside a team's own records."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_schemas import (
    JSON,
    MAX_ID_BYTES,
    MSGPACK,
    TEXT,
    BadBytesError,
    BadTypeError,
    ClassifyRequest,
    IdTooLargeError,
    MissingTextError,
    TextTooLargeError,
    UnknownContentTypeError,
    WireError,
    encode_request,
)
from headrace_schemas.paths import RequestShape, compile_copy, compile_shape, parse_path, write_path

TICKET = {"ticket": {"body": "It broke", "number": 4711, "tags": ["a", {"b": "deep"}], "0": "zero"}, "no": None}
ENCODE: dict[str, Callable[[object], bytes]] = {JSON: msgspec.json.encode, MSGPACK: msgspec.msgpack.encode}


def ticket(text_path: str, id_path: str = "id", content_type: str = JSON) -> ClassifyRequest:
    shape = RequestShape(text_path=text_path, id_path=id_path)
    return compile_shape(shape)(ENCODE[content_type](TICKET), content_type)


@pytest.mark.parametrize("content_type", [JSON, MSGPACK])
@pytest.mark.parametrize(
    ("path", "text"),
    [("ticket.body", "It broke"), ("ticket.tags.0", "a"), ("ticket.tags.1.b", "deep"), ("ticket.0", "zero")],
)
def test_a_text_is_found_at_its_path(content_type: str, path: str, text: str) -> None:
    assert ticket(path, content_type=content_type).text == text


@pytest.mark.parametrize(
    "path",
    ["x", "ticket.x", "ticket.body.x", "ticket.tags.2", "ticket.tags.-1", "ticket.tags.x", "ticket.tags." + "9" * 5000],
)
def test_a_path_that_leads_nowhere_is_named(path: str) -> None:
    with pytest.raises(MissingTextError) as raised:
        ticket(path)
    assert raised.value.field == path


@pytest.mark.parametrize(
    ("path", "found"), [("ticket", "map"), ("ticket.number", "int"), ("ticket.tags", "list"), ("no", "null")]
)
def test_what_is_no_text_is_named_with_its_type(path: str, found: str) -> None:
    with pytest.raises(BadTypeError, match=f"got `{found}`") as raised:
        ticket(path)
    assert raised.value.field == path


def test_an_id_may_be_a_string_a_number_or_absent() -> None:
    assert ticket("ticket.body", "ticket.tags.0").id == "a"
    assert ticket("ticket.body", "ticket.number").id == "4711"
    assert ticket("ticket.body", "ticket.x").id is None
    assert ticket("ticket.body", "no").id is None
    with pytest.raises(BadTypeError, match=r"ticket\.tags: Expected `str \| int \| null`, got `list`"):
        ticket("ticket.body", "ticket.tags")


def test_true_is_no_id() -> None:
    with pytest.raises(BadTypeError):
        compile_shape(RequestShape(text_path="body"))(b'{"body":"a","id":true}', JSON)


@given(st.builds(ClassifyRequest, text=st.text(st.characters(codec="utf-8"))), st.sampled_from([JSON, MSGPACK, TEXT]))
def test_the_default_shape_is_our_own_record(request: ClassifyRequest, content_type: str) -> None:
    assert compile_shape(RequestShape())(encode_request(request, content_type), content_type) == request


@pytest.mark.parametrize(
    "shape", [RequestShape(max_text_bytes=4), RequestShape(text_path="id", id_path="x", max_text_bytes=4)]
)
def test_limits_hold_for_every_shape(shape: RequestShape) -> None:
    decode = compile_shape(shape)
    assert decode(b'{"text":"1234","id":"1234"}', JSON).text == "1234"
    with pytest.raises(TextTooLargeError):
        decode(b'{"text":"12345","id":"12345"}', JSON)
    with pytest.raises(TextTooLargeError):
        decode(b"12345", TEXT)


def test_an_id_at_a_path_is_bounded() -> None:
    value = msgspec.json.encode({"body": "a", "id": "x" * (MAX_ID_BYTES + 1)})
    with pytest.raises(IdTooLargeError):
        compile_shape(RequestShape(text_path="body"))(value, JSON)


def test_a_bare_text_needs_no_path() -> None:
    assert compile_shape(RequestShape(text_path="ticket.body"))(b"It broke", TEXT) == ClassifyRequest(text="It broke")


def test_an_unknown_content_type_is_refused_for_every_shape() -> None:
    for path in ("text", "ticket.body"):
        with pytest.raises(UnknownContentTypeError):
            compile_shape(RequestShape(text_path=path))(b"{}", "application/xml")


def test_a_null_value_has_no_text_in_any_shape() -> None:
    for path in ("text", "ticket.body"):
        with pytest.raises(MissingTextError):
            compile_shape(RequestShape(text_path=path))(None, JSON)


@given(st.binary(max_size=200), st.sampled_from([JSON, MSGPACK, TEXT]))
def test_any_bytes_are_read_or_refused_by_type(value: bytes, content_type: str) -> None:
    shape = RequestShape(text_path="a.0", id_path="b", copy_fields={"x": "c", "y": "0"})
    compile_copy(shape)(value, content_type, ())
    with suppress(WireError):
        compile_shape(shape)(value, content_type)


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(BadBytesError, match="nested too deeply"):
        compile_shape(RequestShape(text_path="a.b"))(b"[" * 5000, JSON)


@pytest.mark.parametrize("path", ["", ".", "a.", ".a", "a..b"])
def test_a_path_with_an_empty_part_is_refused_at_the_start(path: str) -> None:
    with pytest.raises(ValueError, match="single dots"):
        compile_shape(RequestShape(text_path=path))
    with pytest.raises(ValueError, match="single dots"):
        compile_shape(RequestShape(id_path=path))
    with pytest.raises(ValueError, match="single dots"):
        compile_copy(RequestShape(copy_fields={"x": path}))


FLAT = {"after.body": "It broke", "after.id": 7, "back\\slash": "C:\\", "a\\.b": "both", "deep": {"x.y": ["z"]}}


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (r"after\.body", "It broke"),
        (r"back\\slash", "C:\\"),
        (r"a\\\.b", "both"),
        (r"deep.x\.y.0", "z"),
    ],
)
@pytest.mark.parametrize("content_type", [JSON, MSGPACK])
def test_a_key_with_dots_or_backslashes_is_named_by_escapes(content_type: str, path: str, text: str) -> None:
    shape = RequestShape(text_path=path, id_path=r"after\.id", copy_fields={"whole": r"after\.body"})
    value = ENCODE[content_type](FLAT)
    assert compile_shape(shape)(value, content_type) == ClassifyRequest(text=text, id="7")
    assert compile_copy(shape)(value, content_type, ()) == (("whole", b"It broke"),)


@pytest.mark.parametrize("path", ["after\\", r"a.b\n", r"\u0041", "a\\ b", r"a\\\\\ "])
def test_a_path_with_an_escape_that_means_nothing_is_refused_at_the_start(path: str) -> None:
    for make in (
        lambda: compile_shape(RequestShape(text_path=path)),
        lambda: compile_shape(RequestShape(id_path=path)),
        lambda: compile_copy(RequestShape(copy_fields={"x": path})),
    ):
        with pytest.raises(ValueError, match="means nothing"):
            make()


def test_a_path_that_no_record_can_hold_is_refused_at_the_start() -> None:
    with pytest.raises(ValueError, match="not UTF-8"):
        compile_shape(RequestShape(text_path="a\udcff"))


@pytest.mark.parametrize(("text_path", "id_path"), [("a", "a.id"), ("a.text", "a"), ("id.text", "id")])
def test_an_id_inside_the_text_or_the_other_way_round_is_refused_at_the_start(text_path: str, id_path: str) -> None:
    with pytest.raises(ValueError, match="inside the other"):
        compile_shape(RequestShape(text_path=text_path, id_path=id_path))


def test_a_path_that_should_have_been_escaped_is_answered_with_the_escaped_one() -> None:
    with pytest.raises(MissingTextError) as raised:
        compile_shape(RequestShape(text_path="after.body"))(ENCODE[JSON](FLAT), JSON)
    assert r"whose path is after\.body" in raised.value.message


def test_a_missing_key_with_a_dot_is_named_as_its_path() -> None:
    with pytest.raises(MissingTextError) as raised:
        compile_shape(RequestShape(text_path=r"no\.body"))(ENCODE[JSON](FLAT), JSON)
    assert raised.value.field == r"no\.body"


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=1))
def test_every_key_has_a_path(parts: list[str]) -> None:
    assert parse_path(write_path(parts)) == tuple(parts)


def test_a_limit_below_one_byte_is_refused_at_the_start() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        compile_shape(RequestShape(max_text_bytes=0))


def test_an_answer_copies_headers_and_then_fields() -> None:
    shape = RequestShape(
        copy_headers=("tenant",),
        copy_fields={"body": "ticket.body", "number": "ticket.number", "tags": "ticket.tags", "none": "no", "x": "x"},
    )
    headers = compile_copy(shape)(msgspec.json.encode(TICKET), JSON, [("tenant", b"shop"), ("other", b"")])
    assert headers == (
        ("tenant", b"shop"),
        ("body", b"It broke"),
        ("number", b"4711"),
        ("tags", b'["a",{"b":"deep"}]'),
    )


def test_without_fields_to_copy_the_value_is_not_touched() -> None:
    assert compile_copy(RequestShape())(b"\xff", JSON, [("tenant", b"shop")]) == (("tenant", b"shop"),)


@pytest.mark.parametrize("value", [None, b"\xff", msgspec.msgpack.encode({"a": msgspec.msgpack.Ext(5, b"")})])
def test_what_can_not_be_copied_never_fails_the_answer(value: bytes | None) -> None:
    copy = compile_copy(RequestShape(copy_fields={"x": "a"}))
    assert copy(value, MSGPACK, [("tenant", b"shop")]) == (("tenant", b"shop"),)
