"""Dead letters: the request unchanged, the reason in headers, and the way back."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from headrace_schemas import BadHeaderError, DeadLetter, dead_letter_from_record, dead_letter_headers, replay_headers
from headrace_schemas.dead_letters import MAX_MESSAGE_BYTES, PREFIX
from headrace_schemas.headers import read_attempt

LETTER = DeadLetter(
    topic="classify.requests",
    partition=3,
    offset=42,
    timestamp_ms=-1,
    stage="decode",
    error="bad-type",
    message="text: Expected `str`, got `int`",
    headers=(("tenant", b"shop"), ("headrace-attempt", b"1"), ("tenant", None)),
    key=b"k",
    value=b"\xff",
)
WORDS = st.text(st.characters(codec="utf-8"), max_size=100)
INTEGERS = st.integers(0, 2**63 - 1)
LETTERS = st.builds(
    DeadLetter,
    topic=WORDS,
    partition=INTEGERS,
    offset=INTEGERS,
    timestamp_ms=st.integers(-1, 2**63 - 1),
    stage=WORDS,
    error=WORDS,
    message=WORDS,
    attempt=st.integers(1, 1000),
    version=st.none() | WORDS,
    key=st.none() | st.binary(),
    value=st.none() | st.binary(),
    headers=st.lists(st.tuples(WORDS, st.none() | st.binary())).map(tuple),
)


@given(LETTERS)
@example(msgspec.structs.replace(LETTER, headers=((PREFIX, b"forged"), ("tenant", b"shop"))))
def test_a_dead_letter_comes_back_from_its_record(letter: DeadLetter) -> None:
    # Whoever makes the request chooses its headers, also some that look like a reason's: these do not come back.
    own = tuple((name, value) for name, value in letter.headers if not name.startswith(PREFIX))
    comes_back = msgspec.structs.replace(letter, headers=own)
    assert dead_letter_from_record(letter.key, letter.value, dead_letter_headers(letter)) == comes_back


def test_the_requests_own_headers_come_first_and_unchanged() -> None:
    headers = dead_letter_headers(LETTER)
    assert headers[:3] == LETTER.headers
    assert all(name.startswith(PREFIX) for name, _ in headers[3:])


def test_a_request_can_not_forge_the_reason() -> None:
    forged = msgspec.structs.replace(LETTER, headers=((PREFIX + "stage", b"forged"), (PREFIX + "x", b"y")))
    letter = dead_letter_from_record(forged.key, forged.value, dead_letter_headers(forged))
    assert letter.stage == "decode"
    assert letter.headers == ()


def test_a_long_message_is_cut_between_characters() -> None:
    letter = msgspec.structs.replace(LETTER, message="x" + "é" * MAX_MESSAGE_BYTES)
    message = dead_letter_from_record(None, None, dead_letter_headers(letter)).message
    assert message == "x" + "é" * ((MAX_MESSAGE_BYTES - 1) // 2)


def test_a_message_with_a_lone_surrogate_still_travels() -> None:
    letter = msgspec.structs.replace(LETTER, message="got \ud800")
    assert dead_letter_from_record(None, None, dead_letter_headers(letter)).message == r"got \ud800"


def test_a_replay_raises_the_attempt_and_keeps_all_else() -> None:
    headers = replay_headers(LETTER)
    assert headers == (("tenant", b"shop"), ("tenant", None), ("headrace-attempt", b"2"))
    again = msgspec.structs.replace(LETTER, attempt=read_attempt(headers), headers=headers)
    assert read_attempt(replay_headers(again)) == 3


@pytest.mark.parametrize("name", ["topic", "partition", "offset", "timestamp", "stage", "code", "message"])
def test_a_record_without_a_reason_is_refused_by_the_headers_name(name: str) -> None:
    headers = [header for header in dead_letter_headers(LETTER) if header[0] != PREFIX + name]
    with pytest.raises(BadHeaderError) as raised:
        dead_letter_from_record(None, None, headers, where="classify.dead-letters[0]@7")
    assert (raised.value.record, raised.value.field) == ("classify.dead-letters[0]@7", f"header {PREFIX}{name}")


@pytest.mark.parametrize(
    ("name", "value"),
    [("offset", b"x"), ("offset", b"9" * 5000), ("attempt", None), ("version", b"\xff"), ("topic", None)],
)
def test_a_broken_reason_is_refused_by_the_headers_name(name: str, value: bytes | None) -> None:
    headers = (*dead_letter_headers(LETTER), (PREFIX + name, value))
    with pytest.raises(BadHeaderError, match=name):
        dead_letter_from_record(None, None, headers)
