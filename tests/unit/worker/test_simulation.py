"""The promise of the answer log over thousands of interleavings: crashes, zombies, rebalances, failed produces."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.broken_workers import BROKEN, OutlivesItsLease
from tests.support.simulation import Plan, simulate

plans = st.builds(
    Plan,
    partitions=st.integers(1, 3),
    requests=st.integers(5, 30),
    workers=st.integers(1, 3),
    faults=st.integers(0, 8),
    static_members=st.booleans(),
    produce_errors=st.sampled_from((0.0, 0.03, 0.15)),
    gaps=st.sampled_from((0.0, 0.2)),
    reset_commits=st.booleans(),
    cuts=st.sampled_from((0.0, 0.3)),
    seconds=st.floats(1.0, 20.0),
)
TROUBLED = Plan(requests=30, faults=10, produce_errors=0.1, reset_commits=True)
CUT_OFF = Plan(requests=10, faults=3, cuts=1.0, seconds=6.0)
SEEDS_TO_CATCH = 1500
"""About one seed in a hundred shows the rarest fault; the first that does ends the search."""
KNOWN_SEEDS = {"KeepsWhatItFetched": 146}
"""Seeds that showed a rare fault, tried first. One that no longer does costs the search, and no more."""


@pytest.fixture(autouse=True)
def quiet():
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def examples(count: int) -> settings:
    checks = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
    return settings(max_examples=count, deadline=None, suppress_health_check=checks)


@examples(120)
@given(seed=st.integers(0, 2**32), plan=plans)
def test_every_acknowledged_request_gets_one_answer_in_order_whatever_happens(seed, plan):
    verdict = simulate(seed, plan)
    assert verdict.kept, verdict


@pytest.mark.slow
@examples(5000)
@given(seed=st.integers(0, 2**32), plan=plans)
def test_every_acknowledged_request_gets_one_answer_in_thousands_of_interleavings_more(seed, plan):
    verdict = simulate(seed, plan)
    assert verdict.kept, verdict


@examples(30)
@given(seed=st.integers(0, 2**32), plan=st.builds(replace, plans, moves=st.integers(1, 12)))
def test_the_promise_holds_while_the_version_that_answers_is_swapped(seed, plan):
    verdict = simulate(seed, plan)
    assert verdict.kept, verdict


def test_both_versions_really_answer_in_a_simulation_of_swaps():
    assert simulate(1, replace(TROUBLED, moves=6)).versions == {"v1", "v2"}


def test_the_simulation_really_makes_zombies_of_workers_that_keep_no_lease():
    assert any(simulate(seed, TROUBLED, OutlivesItsLease).checked.raw.equal for seed in range(30))


@pytest.mark.parametrize("broken", BROKEN, ids=lambda kind: kind.__name__)
def test_a_broken_worker_is_caught(broken):
    seeds = (KNOWN_SEEDS.get(broken.__name__, 0), *range(SEEDS_TO_CATCH))
    assert any(not simulate(seed, TROUBLED, broken).kept for seed in seeds)


def test_a_worker_that_answers_past_its_lease_is_caught():
    assert any(simulate(seed, CUT_OFF, OutlivesItsLease).forgotten for seed in range(SEEDS_TO_CATCH))


@examples(30)
@given(seed=st.integers(0, 2**32))
def test_the_promise_holds_for_slow_workers_that_lose_the_coordinator_alone(seed):
    verdict = simulate(seed, CUT_OFF)
    assert verdict.kept, verdict
