"""Which texts are worth a label, and in which order they are asked about."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.selection import (
    Candidate,
    Why,
    disagree,
    distinct,
    draw_of,
    in_order,
    in_random_slice,
    margin_of,
    reason_for,
    wish_of,
)
from headrace_schemas.records import ClassifyResult, Score, Status

TOPIC = "classify.requests"


def result(offset: int, *scores: float, label: bool = True, status: Status = Status.OK, first: str = "a"):
    names = [first, *(name for name in "abcdef" if name != first)]
    ranking = tuple(Score(label=name, score=score) for name, score in zip(names, scores, strict=False))
    return ClassifyResult(
        offset=offset,
        after=offset - 1,
        crc=0,
        status=status,
        version="v1",
        label=first if label and scores else None,
        score=scores[0] if scores else None,
        ranking=ranking,
    )


SCORES = st.lists(st.floats(0, 1), min_size=0, max_size=4).map(lambda scores: sorted(scores, reverse=True))
ANSWERS = st.builds(
    lambda offset, scores, label, status, first: result(offset, *scores, label=label, status=status, first=first),
    st.integers(0, 1000),
    SCORES,
    st.booleans(),
    st.sampled_from(list(Status)),
    st.sampled_from("ab"),
)
CANDIDATES = st.lists(
    st.builds(Candidate, st.integers(0, 3), ANSWERS, st.none() | ANSWERS),
    max_size=30,
    unique_by=lambda one: (one.partition, one.answer.offset),
)


@given(CANDIDATES, st.sampled_from(list(Why)), st.randoms())
def test_a_queue_is_of_answered_requests_and_the_same_whatever_their_order(candidates, why, randomness) -> None:
    ordered = in_order(candidates, why, topic=TOPIC)
    shuffled = list(candidates)
    randomness.shuffle(shuffled)
    assert in_order(shuffled, why, topic=TOPIC) == ordered
    assert all(one.answer.status is Status.OK for one in ordered)
    assert len(ordered) == len({(one.partition, one.answer.offset) for one in ordered})
    assert all(reason_for(one, why) for one in ordered)


@given(CANDIDATES)
def test_the_smallest_margin_comes_first_and_abstained_ones_are_those_without_a_label(candidates) -> None:
    margins = [margin_of(one.answer) for one in in_order(candidates, Why.MARGIN, topic=TOPIC)]
    assert margins == sorted(margins)
    abstained = in_order(candidates, Why.ABSTAINED, topic=TOPIC)
    assert {one.answer.label for one in abstained} <= {None}
    assert len(abstained) == sum(one.answer.status is Status.OK and one.answer.label is None for one in candidates)


@given(CANDIDATES)
def test_only_what_two_versions_answer_differently_is_a_disagreement(candidates) -> None:
    ordered = in_order(candidates, Why.DISAGREEMENT, topic=TOPIC)
    assert all(one.other is not None and disagree(one.answer, one.other) for one in ordered)


def test_disagreements_of_sure_versions_come_before_those_of_unsure_ones() -> None:
    sure = Candidate(0, result(1, 0.9, 0.1), result(1, 0.9, 0.1, first="b"))
    unsure = Candidate(0, result(0, 0.9, 0.1), result(0, 0.5, 0.5, first="b"))
    assert in_order([unsure, sure], Why.DISAGREEMENT, topic=TOPIC) == [sure, unsure]
    assert reason_for(sure, Why.DISAGREEMENT) == "v1 says a, v1 says b"


@given(st.sets(st.tuples(st.integers(0, 3), st.integers(0, 500)), max_size=60), st.integers(0, 60))
def test_the_first_of_the_random_queue_are_a_random_slice(places, count) -> None:
    candidates = [Candidate(partition, result(offset, 0.9, 0.1)) for partition, offset in sorted(places)]
    first = in_order(candidates, Why.RANDOM, topic=TOPIC)[:count]
    last = max((draw_of(TOPIC, one.partition, one.answer.offset) for one in first), default=-1)
    share = (last + 1) / 2**64
    drawn = [one for one in candidates if in_random_slice(TOPIC, one.partition, one.answer.offset, share)]
    # A share is a float, of 53 bits, so the last one may lie on either side of it.
    assert abs(len(drawn) - len(first)) <= 1


def test_the_random_queue_does_not_see_what_was_answered() -> None:
    places = [(partition, offset) for partition in range(2) for offset in range(50)]
    sure = [Candidate(partition, result(offset, 0.99, 0.01)) for partition, offset in places]
    unsure = [Candidate(partition, result(offset, 0.5, 0.5, first="b")) for partition, offset in places]
    orders = [
        [(one.partition, one.answer.offset) for one in in_order(candidates, Why.RANDOM, topic=TOPIC)]
        for candidates in (sure, unsure)
    ]
    assert orders[0] == orders[1]


@given(st.lists(st.integers(0, 5)), st.sets(st.integers(0, 5)))
def test_of_equal_texts_the_first_is_asked_about_and_none_that_has_a_label(keys, known) -> None:
    places = list(distinct(range(len(keys)), keys, known))
    assert places == sorted(places)
    assert [keys[place] for place in places] == list(dict.fromkeys(key for key in keys if key not in known))


@pytest.mark.parametrize(
    ("answer", "margin"),
    [
        (result(0, 0.7, 0.2), 0.5),
        (result(0, 0.7), pytest.approx(0.4)),
        (result(0, 0.3), 0.0),
        (result(0), 0.0),
    ],
)
def test_a_margin_is_how_far_the_best_label_is_before_the_second(answer, margin) -> None:
    assert margin_of(answer) == pytest.approx(margin)


@given(ANSWERS, st.floats(0, 1), st.floats(0, 1), st.booleans())
def test_a_wish_is_of_an_answered_request_and_within_its_settings(answer, random, least_margin, abstained) -> None:
    wish = wish_of(answer, topic=TOPIC, partition=1, random=random, least_margin=least_margin, abstained=abstained)
    if wish is None:
        return
    assert answer.status is Status.OK
    match wish.why:
        case Why.RANDOM:
            assert in_random_slice(TOPIC, 1, answer.offset, random)
        case Why.ABSTAINED:
            assert abstained
            assert answer.label is None
        case _:
            assert wish.margin < least_margin
