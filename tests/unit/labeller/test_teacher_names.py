"""How a teacher is named, and what its version hangs on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.labeller.teachers.interface import (
    Kind,
    Spent,
    TeacherName,
    TeacherNameError,
    digest_of,
    identity_of,
    parse_teacher,
)
from headrace_schemas.topics import verdict_key


@pytest.mark.parametrize(
    ("name", "kind", "target"),
    [
        ("encoder", Kind.ENCODER, None),
        ("encoder:sentence-transformers/all-MiniLM-L6-v2", Kind.ENCODER, "sentence-transformers/all-MiniLM-L6-v2"),
        ("encoder: ./here ", Kind.ENCODER, "./here"),
        ("endpoint:http://127.0.0.1:8000/v1", Kind.ENDPOINT, "http://127.0.0.1:8000/v1"),
        ("endpoint:https://[::1]:8000/v1", Kind.ENDPOINT, "https://[::1]:8000/v1"),
        ("program:python label.py --of 'a b'", Kind.PROGRAM, "python label.py --of 'a b'"),
    ],
)
def test_a_name_says_kind_and_target(name: str, kind: Kind, target: str | None) -> None:
    assert parse_teacher(name) == TeacherName(kind, target)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("", "names no teacher"),
        ("Encoder", "names no teacher"),
        ("gpt-4", "endpoint:URL"),
        ("encoder:", "nothing behind the colon"),
        ("endpoint", "needs an address"),
        ("program", "needs a command"),
        ("endpoint:localhost:8000", "begins with http"),
        ("endpoint:file:///etc/passwd", "begins with http"),
        ("endpoint:ftp://host/v1", "begins with http"),
        ("endpoint:http:///v1", "names a host"),
        ("endpoint:http://host:99999/v1", "is no address"),
        ("endpoint:http://[::1/v1", "is no address"),
        ("endpoint:http://host/v1?key=x", "no ?"),
        ("program:a\nb", "can't be printed"),
    ],
)
def test_what_names_no_teacher_is_refused_in_words(name: str, told: str) -> None:
    with pytest.raises(TeacherNameError, match=None) as refused:
        parse_teacher(name)
    assert told in str(refused.value)
    assert refused.value.exit_code == 2


def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(TeacherNameError) as refused:
        parse_teacher("endpoint:https://user:hunter2@host/v1")
    assert "hunter2" not in str(refused.value)
    assert "HEADRACE_TEACHER__API_KEY" in str(refused.value)


@given(st.text())
def test_any_text_is_a_name_that_reads_the_same_again_or_is_refused(text: str) -> None:
    try:
        name = parse_teacher(text)
    except TeacherNameError:
        return
    assert parse_teacher(str(name)) == name


@given(st.lists(st.binary(), max_size=4), st.lists(st.binary(), max_size=4))
def test_only_equal_parts_have_equal_digests(one: list[bytes], other: list[bytes]) -> None:
    assert (digest_of(*one) == digest_of(*other)) == (one == other)


def test_a_version_hangs_on_labels_parts_and_prompt_and_is_part_of_a_key() -> None:
    name = parse_teacher("encoder")
    versions = {
        identity_of(name, ("a", "b"), b"head").version,
        identity_of(name, ("b", "a"), b"head").version,
        identity_of(name, ("a,b",), b"head").version,
        identity_of(name, ("a", "b"), b"other").version,
        identity_of(name, ("a", "b"), b"head", prompt="p").version,
    }
    assert len(versions) == 5
    for version in versions:
        verdict_key("model", version)


def test_what_was_spent_adds_up() -> None:
    assert Spent(1, 2, 3, 0.5) + Spent(1, 1, 1, 0.25) == Spent(2, 3, 4, 0.75)
