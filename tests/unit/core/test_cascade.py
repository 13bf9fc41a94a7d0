"""Thresholds with a bound: exact where it is made, valid at any moment where it is watched."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta

from headrace.core.cascade import (
    Certified,
    Refused,
    certify,
    grid_of,
    lower_bound_anytime,
    rows_needed,
    upper_bound,
    upper_bound_anytime,
)


@given(st.integers(1, 5000), st.data())
def test_the_bound_is_that_of_clopper_and_pearson(rows, data):
    errors = data.draw(st.integers(0, min(rows - 1, 400)))
    assert upper_bound(errors, rows) == pytest.approx(beta.ppf(0.95, errors + 1, rows - errors), abs=1e-9)


def test_nothing_is_known_without_rows_or_where_all_are_errors():
    assert upper_bound(0, 0) == upper_bound(7, 7) == 1.0
    assert lower_bound_anytime(0, 0, 0.02) == 0.0
    with pytest.raises(ValueError, match="8 errors of 7 rows"):
        upper_bound(8, 7)


@pytest.mark.parametrize(("disagree", "rows"), [(0.02, 149), (0.01, 299)])
def test_without_an_error_so_many_rows_are_needed(disagree, rows):
    assert rows_needed(disagree) == rows
    assert upper_bound(0, rows) <= disagree < upper_bound(0, rows - 1)


def sample(rows, randomness, share=0.15):
    """Scores, and whether each answer is wrong: the lower the score, the more often, ``share`` of all."""
    scores = randomness.random(rows)
    return scores, randomness.random(rows) < 2 * share * (1 - scores)


def test_a_certificate_covers_what_it_may_and_says_what_was_seen():
    scores, wrong = sample(20_000, np.random.default_rng(1))
    found = certify(scores.tolist(), wrong.tolist(), grid_of(np.linspace(0, 1, 500).tolist()), disagree=0.05)
    assert isinstance(found, Certified)
    above = scores >= found.threshold
    assert (found.rows, found.accepted, found.errors) == (20_000, above.sum(), wrong[above].sum())
    assert found.bound <= 0.05
    # Above 2/3 a twentieth is wrong, so about a third can be answered alone.
    assert 0.28 < found.accepted / found.rows < 0.35


def test_the_promise_is_broken_in_no_more_than_one_of_twenty_certificates():
    randomness = np.random.default_rng(7)
    broken = made = 0
    for _ in range(300):
        scores, wrong = sample(900, randomness)
        grid = grid_of(randomness.random(300).tolist())
        found = certify(scores.tolist(), wrong.tolist(), grid, disagree=0.1)
        if isinstance(found, Certified):
            made += 1
            broken += 0.15 * (1 - found.threshold) > 0.1
    assert made > 150
    # One of twenty, and what chance adds to it in three hundred.
    assert broken <= 0.05 * 300 + 3 * (0.05 * 0.95 * 300) ** 0.5


def test_testing_goes_down_to_the_first_failure_and_not_past_it():
    # From the top: 400 right, 400 of which a tenth is wrong, then 10,000 right.
    scores = [0.9] * 400 + [0.8] * 400 + [0.7] * 10_000
    wrong = [False] * 400 + [place % 10 == 0 for place in range(400)] + [False] * 10_000
    found = certify(scores, wrong, (0.9, 0.8, 0.7), disagree=0.02)
    assert isinstance(found, Certified)
    assert (found.threshold, found.accepted, found.errors) == (0.9, 400, 0)


def test_too_few_rows_certify_nothing_and_how_many_are_needed_is_said():
    refused = certify([0.9] * 120, [False] * 120, (0.9,), disagree=0.02)
    assert isinstance(refused, Refused)
    assert "120 rows are too few" in refused.why
    assert "149" in refused.why


def test_wrong_answers_at_the_top_certify_nothing_and_are_said():
    refused = certify([0.9] * 400, [place < 20 for place in range(400)], (0.9,), disagree=0.02)
    assert isinstance(refused, Refused)
    assert "20 are answered wrong" in refused.why


@pytest.mark.parametrize(("disagree", "confidence"), [(0.0, 0.95), (1.0, 0.95), (0.02, 1.0), (float("nan"), 0.95)])
def test_what_is_no_share_is_refused(disagree, confidence):
    with pytest.raises(ValueError, match="between 0 and 1"):
        certify([], [], (), disagree=disagree, confidence=confidence)


def test_whoever_looks_at_every_row_sees_a_bound_that_is_kept_broken_in_no_more_than_one_of_twenty_runs():
    randomness = np.random.default_rng(3)
    broken = 0
    for _ in range(100):
        errors = np.cumsum(randomness.random(1500) < 0.02)
        broken += any(lower_bound_anytime(int(errors[rows - 1]), rows, 0.02) > 0.02 for rows in range(1, 1501, 7))
    assert broken <= 0.05 * 100 + 3 * (0.05 * 0.95 * 100) ** 0.5


def test_a_share_that_has_grown_is_noticed():
    errors = np.cumsum(np.random.default_rng(5).random(2000) < 0.06)
    assert lower_bound_anytime(int(errors[-1]), 2000, 0.02) > 0.02
    assert lower_bound_anytime(40, 2000, 0.02) < 0.02 < upper_bound_anytime(40, 2000, 0.02)


@given(st.lists(st.floats(0, 1), max_size=200))
def test_a_grid_falls_and_has_no_score_twice(scores):
    grid = grid_of(scores)
    assert list(grid) == sorted(set(grid), reverse=True)
    assert set(grid) <= set(scores)
    assert not scores or grid[-1] == min(scores)
