"""Rules of labels: chains are followed, and a circle can't be closed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.label_rules import answered_as, learnt_as, refusal, rules_of

NAMES = st.sampled_from("abcdef")
DECISIONS = st.lists(st.tuples(NAMES, st.none() | NAMES), max_size=12)


@pytest.mark.parametrize(
    ("rules", "learnt"),
    [
        ({}, "a"),
        ({"a": "b"}, "b"),
        ({"a": "b", "b": "c"}, "c"),
        ({"a": "b", "b": None}, None),
        ({"a": None}, None),
        ({"b": "c"}, "a"),
        ({"a": "b", "b": "a"}, "a"),
        ({"a": "b", "b": "c", "c": "b"}, "a"),
        ({"a": "a"}, "a"),
    ],
)
def test_a_label_is_learnt_as_the_last_of_its_chain(rules: dict, learnt: str | None) -> None:
    assert learnt_as("a", rules) == learnt
    assert answered_as("a", rules) == (learnt or "a")


@given(DECISIONS)
def test_what_is_not_refused_never_closes_a_circle_and_every_label_ends_at_one_without_a_rule(decisions) -> None:
    rules: dict[str, str | None] = {}
    for label, becomes in decisions:
        if refusal(rules, label, becomes) is None:
            rules[label] = becomes
    for label in "abcdef":
        learnt = learnt_as(label, rules)
        assert learnt is None or learnt not in rules
        assert (learnt == label) == (label not in rules)


@given(st.dictionaries(NAMES, st.none() | NAMES), NAMES)
def test_any_rules_that_somebody_wrote_come_to_an_end(rules, label) -> None:
    learnt = learnt_as(label, rules)
    assert learnt is None or learnt_as(learnt, rules) in (learnt, None) or learnt == label


@pytest.mark.parametrize(
    ("label", "becomes", "said"),
    [
        ("b", "a", "a becomes b: they would go in a circle"),
        ("c", "a", "a becomes b becomes c"),
        ("x", "r", "r is no longer given"),
        ("x", "x", "is that label already"),
        ("", "x", "has a name"),
        ("x", "", "has a name"),
    ],
)
def test_what_can_not_be_is_refused_in_words(label: str, becomes: str, said: str) -> None:
    rules = {"a": "b", "r": None} | ({"b": "c"} if label == "c" else {})
    assert said in (refusal(rules, label, becomes) or "")


def test_a_rule_may_be_changed_and_names_are_spelled_as_training_spells_them() -> None:
    assert refusal({"a": "b"}, "a", "c") is None
    assert refusal({"a": "b"}, "b", None) is None
    assert rules_of([("cafe\u0301 ", " new"), ("B", None)]) == {"café": "new", "B": None}
