"""Which requests are worth a label, and that the random slice hangs on nothing but chance."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.selection import Why, in_random_slice, margin_of, wish_of
from headrace_schemas.records import ClassifyResult, Score, Status


def answer(*, label: str | None = "a", score: float | None = 0.9, ranking: tuple[Score, ...] = (), **fields: object):
    plain = {"offset": 3, "after": 2, "crc": 0, "status": Status.OK, "version": "v"}
    return ClassifyResult(label=label, score=score, ranking=ranking, **(plain | fields))


def wish(given: ClassifyResult, *, random: float = 0.0, least_margin: float = 0.3, abstained: bool = True):
    return wish_of(given, topic="t", partition=0, random=random, least_margin=least_margin, abstained=abstained)


def test_the_margin_is_the_distance_of_the_best_two_or_what_a_score_leaves_for_it() -> None:
    ranked = answer(ranking=(Score("a", 0.5), Score("b", 0.4), Score("c", 0.1)))
    assert margin_of(ranked) == pytest.approx(0.1)
    assert margin_of(answer(score=0.9)) == pytest.approx(0.8)
    assert margin_of(answer(score=0.2)) == 0.0


def test_doubt_and_abstention_are_wishes_and_a_sure_answer_is_none() -> None:
    assert wish(answer(score=0.99)) is None
    assert (wish(answer(score=0.6)) or wish(answer())).why is Why.MARGIN
    abstention = answer(label=None, score=0.99)
    assert wish(abstention).why is Why.ABSTAINED
    assert wish(abstention, abstained=False) is None


@pytest.mark.parametrize("status", [Status.EXPIRED, Status.FAILED])
def test_what_was_not_answered_is_no_wish(status: Status) -> None:
    assert wish(answer(status=status, label=None, score=None), random=1.0) is None


@given(st.integers(0, 100), st.integers(0, 10**12), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_slice_has_the_smaller_one_in_it(partition: int, offset: int, one: float, other: float) -> None:
    small, large = sorted((one, other))
    assert in_random_slice("t", partition, offset, large) or not in_random_slice("t", partition, offset, small)


def test_the_slice_has_its_share_whatever_the_model_says() -> None:
    drawn = [offset for offset in range(20_000) if in_random_slice("t", 1, offset, 0.05)]
    assert 850 < len(drawn) < 1150
    assert all(wish(answer(offset=offset, score=1.0), random=1.0).why is Why.RANDOM for offset in drawn[:10])
    assert not in_random_slice("t", 1, 7, 0.0)
    assert in_random_slice("t", 1, 7, 1.0)
