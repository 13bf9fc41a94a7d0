"""What is taken out of a text, and that nothing leaves that was not named."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.labeller.teachers.interface import TeacherError
from headrace.labeller.teachers.privacy import Redaction, Source, check_leaving
from headrace.labeller.teachers.settings import TeacherSettings


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("write to jane.doe+x@mail.example.com.", "write to [email]."),
        ("müller@bücher.example", "[email]"),
        ("card 4111 1111 1111 1111 expired", "card [card] expired"),
        ("call +49 (30) 123456-78 now", "call [phone] now"),
        ("or 555-123-4567", "or [phone]"),
        ("order 12345 of 2026-11-29, 3.50 EUR", "order 12345 of 2026-11-29, 3.50 EUR"),
        ("a @ b and 1 + 2", "a @ b and 1 + 2"),
    ],
)
def test_what_is_personal_is_taken_out_and_nothing_else(text: str, left: str) -> None:
    assert Redaction()(text) == left


def test_only_what_is_asked_for_is_taken_out_and_own_patterns_too() -> None:
    assert Redaction(("email",), (r"\bINV-\d+",))("INV-77 to a@b.example, +49 30 1234567") == (
        "[redacted] to [email], +49 30 1234567"
    )
    assert Redaction((), ())("a@b.example") == "a@b.example"
    # Its check digit is wrong.
    assert Redaction(("card",))("4111-1111-1111-1112") == "4111-1111-1111-1112"


@given(st.text(st.sampled_from("a1@.+- ()"), max_size=400))
def test_a_redacted_text_stays_as_it_is(text: str) -> None:
    redact = Redaction()
    assert redact(redact(text)) == redact(text)


@pytest.mark.parametrize("text", ["a" * 100_000, "1" * 100_000, "a.@" * 30_000, "+1 (" * 30_000, "1-" * 50_000])
def test_no_text_holds_redaction_up(text: str) -> None:
    # A pattern that goes back and forth would take hours, and the run would end by its time limit.
    Redaction()(text)


@pytest.mark.parametrize(("names", "patterns"), [(("iban",), ()), ((), ("(",)), ((), ("a*",))])
def test_a_redaction_that_is_none_is_refused_with_the_settings(names: tuple, patterns: tuple) -> None:
    with pytest.raises(ValueError, match="redact"):
        TeacherSettings(redact=names, redact_patterns=patterns)


@pytest.mark.parametrize(
    ("source", "named"),
    [(Source("text"), "text"), (Source("text", "classify.requests"), "classify.requests:text")],
)
def test_nothing_leaves_that_was_not_named(source: Source, named: str) -> None:
    for may_leave in ((), ("other",), (f"{named}s",), ("*",)):
        with pytest.raises(TeacherError, match="Nothing was sent") as refused:
            check_leaving(source, may_leave, "https://host/v1")
        assert f"--may-leave {named}" in str(refused.value)
    check_leaving(source, ("x", named), "https://host/v1")
