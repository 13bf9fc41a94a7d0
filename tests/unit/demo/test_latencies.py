import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.demo.ledger import Latencies, Rate

seconds = st.floats(0.0001, 100, allow_nan=False)


@given(st.lists(seconds, min_size=1, max_size=200), st.sampled_from([0.01, 0.5, 0.9, 0.99, 1.0]))
def test_a_quantile_is_the_one_of_nearest_rank_within_one_percent(values: list[float], share: float) -> None:
    latencies = Latencies()
    for value in values:
        latencies.add(value)
    true = sorted(values)[math.ceil(share * len(values)) - 1]
    assert latencies.quantile(share) == pytest.approx(true, rel=0.0101)


def test_without_latencies_there_is_no_quantile() -> None:
    assert Latencies().quantile(0.5) is None


@pytest.mark.parametrize(("given_s", "shown_s"), [(-1.0, 0.0001), (0.0, 0.0001), (5000.0, 102.0)])
def test_what_is_outside_of_the_buckets_counts_as_the_first_or_the_last(given_s: float, shown_s: float) -> None:
    latencies = Latencies()
    latencies.add(given_s)
    assert latencies.quantile(0.5) == pytest.approx(shown_s, rel=0.05)


def test_a_rate_is_of_the_last_seconds_alone() -> None:
    rate = Rate(window_s=2.0)
    assert rate.at(0.0, 0) == 0.0
    assert rate.at(1.0, 100) == 100.0
    assert rate.at(2.0, 200) == 100.0
    assert rate.at(3.0, 200) == 50.0
    assert rate.at(4.0, 200) == 0.0


def test_a_rate_keeps_no_more_samples_than_its_window_needs() -> None:
    rate = Rate(window_s=2.0)
    for number in range(1000):
        assert rate.at(number * 0.25, number) == pytest.approx(4.0 if number else 0.0)
    assert len(rate._samples) <= 9
