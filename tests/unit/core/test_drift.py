from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.drift import DriftWindow, enough, psi, tenths
from headrace_schemas.records import Profile

SURE = (0.0,) * 9 + (1.0,)


def shares(weights: Sequence[int]) -> list[float]:
    return [weight / sum(weights) for weight in weights]


distributions = st.lists(st.integers(0, 1000), min_size=5, max_size=5).filter(any).map(shares)


def answers(window: DriftWindow, labels: Sequence[int], now_s: float = 0.0, score: float = 0.95) -> None:
    window.add(Counter(labels), tenths([score] * len(labels)), now_s)


@given(distributions, distributions, st.integers(1, 10**6))
def test_the_index_is_symmetric_and_never_negative(one: list[float], other: list[float], count: int) -> None:
    assert psi(one, other, count) == pytest.approx(psi(other, one, count), abs=1e-12)
    assert psi(one, other, count) >= 0
    assert psi(one, one, count) == 0


@given(distributions, distributions, st.randoms())
def test_the_order_of_the_bins_does_not_matter(one: list[float], other: list[float], random_: random.Random) -> None:
    order = random_.sample(range(5), 5)
    shuffled = psi([one[place] for place in order], [other[place] for place in order], 1000)
    assert shuffled == pytest.approx(psi(one, other, 1000), abs=1e-12)


def test_the_index_is_that_of_the_formula_where_no_bin_is_empty() -> None:
    formula = (0.4 - 0.5) * math.log(0.4 / 0.5) + (0.6 - 0.5) * math.log(0.6 / 0.5)
    assert psi([0.5, 0.5], [0.4, 0.6], 1e9) == pytest.approx(formula, rel=1e-6)


def test_an_empty_bin_gives_a_finite_index_that_grows_with_what_was_seen() -> None:
    few, many = psi([1.0, 0.0], [0.9, 0.1], 100), psi([1.0, 0.0], [0.9, 0.1], 10_000)
    assert 0.25 < few < many < math.inf


def test_vectors_of_different_bins_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        psi([0.5, 0.5], [1.0], 10)


def test_every_score_is_in_its_tenth_and_a_whole_one_in_the_last() -> None:
    assert tenths([0.0, 0.0999, 0.1, 0.95, 1.0, 1.0]) == {0: 2, 1: 1, 9: 3}


@pytest.mark.parametrize("labels", [2, 20, 150])
def test_without_drift_chance_alone_stays_below_what_is_read_as_no_change(labels: int) -> None:
    chance = random.Random(labels)
    weights = [chance.random() for _ in range(labels)]
    window = DriftWindow(Profile(tuple(w / sum(weights) for w in weights), SURE), answers=1)
    answers(window, chance.choices(range(labels), weights, k=enough(max(labels, 10))))
    drift = window.measure(0.0)
    assert drift is not None
    assert drift.labels < 0.1
    assert drift.confidence == 0


def test_nothing_is_said_until_enough_was_seen() -> None:
    window = DriftWindow(Profile((0.5, 0.5), SURE))
    answers(window, [0] * (enough(10) - 1))
    assert window.measure(0.0) is None
    answers(window, [0])
    drift = window.measure(0.0)
    assert drift is not None
    assert drift.labels > 0.25
    assert drift.answers == enough(10)


def test_a_fall_of_confidence_is_seen_apart_from_the_labels() -> None:
    window = DriftWindow(Profile((0.5, 0.5), SURE))
    answers(window, [0, 1] * 1000, score=0.55)
    drift = window.measure(0.0)
    assert drift is not None
    assert drift.labels == 0
    assert drift.confidence > 0.25


def test_only_the_last_answers_count() -> None:
    window = DriftWindow(Profile((0.5, 0.5), SURE), answers=1000)
    for _ in range(50):
        answers(window, [0] * 100)
    for _ in range(12):
        answers(window, [0, 1] * 50)
    drift = window.measure(0.0)
    assert drift is not None
    assert drift.labels == 0
    assert 1000 <= drift.answers < 1200


def test_old_answers_are_forgotten_even_when_no_new_ones_come() -> None:
    window = DriftWindow(Profile((0.5, 0.5), SURE), seconds=60)
    answers(window, [0] * 2000, now_s=100.0)
    assert window.measure(159.0) is not None
    assert window.measure(160.0) is None


@given(st.lists(st.tuples(st.integers(0, 300), st.floats(0, 20)), max_size=80))
def test_the_window_never_holds_much_more_than_was_asked_for(steps: list[tuple[int, float]]) -> None:
    window = DriftWindow(Profile((0.5, 0.5), SURE), answers=1000, seconds=60)
    now = 0.0
    for count, passed in steps:
        now += passed
        answers(window, [0] * count, now)
        drift = window.measure(now)
        assert drift is None or drift.answers < 1000 + 100 + 300
