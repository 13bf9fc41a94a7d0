"""The tally of two versions' answers: every joined answer is counted once, somewhere."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from headrace.core.agreement import NO_LABEL, Tally
from headrace_schemas.records import ClassifyResult, Status


def result(offset: int, label: str | None, version: str = "v1", status: Status = Status.OK) -> ClassifyResult:
    return ClassifyResult(offset=offset, after=offset - 1, crc=0, status=status, version=version, label=label)


def tally_of(*pairs: tuple[str | None, str | None], examples: int = 2) -> Tally:
    tally = Tally("v1", "v2", examples)
    for offset, (a, b) in enumerate(pairs):
        tally.joined(7, result(offset, a), result(offset, b, "v2"))
    return tally


def test_classes_are_those_of_a_and_the_most_frequent_disagreement_comes_first() -> None:
    agreement = tally_of(
        ("sport", "sport"), ("sport", "news"), ("sport", "arts"), ("sport", "news"), ("news", "news"), ("arts", None)
    ).agreement()
    assert (agreement.requests, agreement.agreeing) == (6, 2)
    assert [(one.label, one.requests, one.agreeing) for one in agreement.classes] == [
        ("sport", 4, 1),
        ("arts", 1, 0),
        ("news", 1, 1),
    ]
    assert agreement.classes[0].otherwise == {"news": 2, "arts": 1}
    assert list(agreement.classes[0].otherwise) == ["news", "arts"]
    assert agreement.classes[1].otherwise == {NO_LABEL: 1}
    assert [(one.partition, one.offset, one.a, one.b) for one in agreement.examples] == [
        (7, 1, "sport", "news"),
        (7, 3, "sport", "news"),
        (7, 5, "arts", NO_LABEL),
        (7, 2, "sport", "arts"),
    ]


def test_a_name_that_two_versions_spell_differently_is_one_label() -> None:
    agreement = tally_of(("re\u0301el", "r\u00e9el"), ("True", "true"), ("sport", None)).agreement()
    assert (agreement.requests, agreement.agreeing) == (3, 2)
    assert [one.label for one in agreement.classes] == ["sport", "r\u00e9el", "true"]


def test_only_answers_that_are_ok_by_the_versions_asked_for_are_compared() -> None:
    tally = tally_of(("a", "a"))
    tally.joined(0, result(1, "a", "v0"), result(1, "a", "v2"))
    tally.joined(0, result(2, "a"), result(2, None, "v2", Status.EXPIRED))
    tally.alone(0)
    tally.alone(1)
    tally.alone(1)
    agreement = tally.agreement()
    assert (agreement.requests, agreement.other_versions, agreement.not_ok) == (1, 1, 1)
    assert (agreement.only_a, agreement.only_b) == (1, 2)
    assert (agreement.versions_a, agreement.versions_b) == ({"v1": 2, "v0": 1}, {"v2": 3})


@given(st.lists(st.tuples(*[st.none() | st.sampled_from("abc")] * 2)), st.integers(0, 3))
def test_every_request_is_in_one_class_and_examples_are_bounded(
    pairs: list[tuple[str | None, str | None]], examples: int
) -> None:
    agreement = tally_of(*pairs, examples=examples).agreement()
    assert agreement.requests == len(pairs) == sum(one.requests for one in agreement.classes)
    assert agreement.agreeing == sum(a == b for a, b in pairs) == sum(one.agreeing for one in agreement.classes)
    for one in agreement.classes:
        assert one.agreeing + sum(one.otherwise.values()) == one.requests
    of_each = Counter((one.a, one.b) for one in agreement.examples)
    wanted = Counter((a or NO_LABEL, b or NO_LABEL) for a, b in pairs if a != b)
    assert of_each == Counter({pair: min(count, examples) for pair, count in wanted.items() if examples})
