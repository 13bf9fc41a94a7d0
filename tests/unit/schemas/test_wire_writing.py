"""What is written by a shape is what a worker of that shape reads."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from headrace_schemas import JSON, MSGPACK, TEXT, BadTypeError, ClassifyRequest, IdTooLargeError, TextTooLargeError
from headrace_schemas.paths import RequestShape, compile_shape, compile_writer, request_value, write_path

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
PARTS = st.one_of(st.sampled_from(["a", "b", "0", "00", "1", "x.y", "back\\slash"]), TEXTS.filter(bool))
PATHS = st.lists(PARTS, min_size=1, max_size=4)


@example(text_path=["0", "0"], id_path=["0", "00"], text="", id_=None, content_type=JSON)
@given(text_path=PATHS, id_path=PATHS, text=TEXTS, id_=st.none() | TEXTS, content_type=st.sampled_from([JSON, MSGPACK]))
def test_what_can_be_written_is_read_back_for_every_shape(
    text_path: list[str], id_path: list[str], text: str, id_: str | None, content_type: str
) -> None:
    both = min(len(text_path), len(id_path))
    assume(len(text_path) == len(id_path) or text_path[:both] != id_path[:both])  # compile_shape refuses those
    shape = RequestShape(text_path=write_path(text_path), id_path=write_path(id_path))
    request = ClassifyRequest(text=text, id=id_)
    try:
        value = compile_writer(shape)(request, content_type)
    except BadTypeError:
        return
    read = compile_shape(shape)(value, content_type)
    assert read == (msgspec.structs.replace(request, id=text) if text_path == id_path else request)


@given(text_path=st.lists(st.sampled_from(["a", "0", "x.y"]), min_size=1, max_size=5), text=TEXTS, id_=TEXTS)
def test_names_and_first_places_of_lists_can_always_be_written(text_path: list[str], text: str, id_: str) -> None:
    shape = RequestShape(text_path=write_path(text_path), id_path="number")
    request = ClassifyRequest(text=text, id=id_)
    assert compile_shape(shape)(compile_writer(shape)(request, JSON), JSON) == request or text_path[0] == "number"


@pytest.mark.parametrize(
    ("text_path", "id_path", "built"),
    [
        ("ticket.body", "ticket.number", {"ticket": {"body": "t", "number": "7"}}),
        (r"after\.body", "id", {"after.body": "t", "id": "7"}),
        ("items.0.text", "items.0.id", {"items": [{"text": "t", "id": "7"}]}),
        ("pair.1", "pair.0", {"pair": ["7", "t"]}),
        ("items.0", "items.id", {"items": {"0": "t", "id": "7"}}),
    ],
)
def test_a_request_has_the_users_own_shape(text_path: str, id_path: str, built: object) -> None:
    assert request_value(RequestShape(text_path=text_path, id_path=id_path), "t", "7") == built


@pytest.mark.parametrize(
    ("text_path", "id_path", "said"),
    [
        ("items.2.text", "id", "place 2 of a list"),
        ("pair.1", "pair.7", "place 7 of a list"),
        ("body", "body", "another id"),
    ],
)
def test_what_cannot_be_built_is_refused_in_words(text_path: str, id_path: str, said: str) -> None:
    with pytest.raises(BadTypeError, match=said):
        compile_writer(RequestShape(text_path=text_path, id_path=id_path))(ClassifyRequest(text="t", id="7"), JSON)


def test_a_bare_text_has_no_place_for_an_id_in_any_shape() -> None:
    writer = compile_writer(RequestShape(text_path="body"))
    assert writer(ClassifyRequest(text="t"), TEXT) == b"t"
    with pytest.raises(BadTypeError, match="no place for an id"):
        writer(ClassifyRequest(text="t", id="7"), TEXT)


@pytest.mark.parametrize("path", ["text", "body"])
def test_the_limits_of_the_shape_hold_before_anything_is_sent(path: str) -> None:
    writer = compile_writer(RequestShape(text_path=path, max_text_bytes=3))
    with pytest.raises(TextTooLargeError):
        writer(ClassifyRequest(text="four"), JSON)
    with pytest.raises(IdTooLargeError):
        writer(ClassifyRequest(text="x", id="i" * 2000), JSON)
