"""When requests are due."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace_load.workload.recording import Recording
from headrace_load.workload.requests import arrivals, highest_rate, rate_at
from headrace_load.workload.spec import (
    Backlog,
    Burst,
    Constant,
    Diurnal,
    MadeTexts,
    Poisson,
    Ramp,
    Recorded,
    Step,
    Workload,
    WorkloadError,
)

RATES = st.floats(10, 3000)
SECONDS = st.floats(0.5, 4)
PRODUCERS = st.integers(1, 5)
VARYING = st.one_of(
    st.builds(Poisson, rate=RATES),
    st.builds(lambda low, top, share, whole: Burst(rate=low, burst_rate=top, burst_seconds=share * whole, every=whole),
              RATES, RATES, st.floats(0.1, 0.9), st.floats(0.2, 5)),
    st.builds(Ramp, first=RATES, last=RATES),
    st.builds(Step, rates=st.lists(RATES, min_size=1, max_size=5).map(tuple)),
    st.builds(lambda a, b, period: Diurnal(lowest=min(a, b), highest=max(a, b), period=period),
              RATES, RATES, st.floats(0.2, 5)),
)  # fmt: skip
QUICK = settings(max_examples=40, deadline=None)


def workload(kind: Any, *, seconds: float = 2.0, warm_up: float = 0.0, producers: int = 1) -> Workload:
    return Workload(arrivals=kind, texts=MadeTexts(), seconds=seconds, warm_up=warm_up, producers=producers)


def due(of: Workload, producer: int, recording: Recording | None = None, seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng([seed, producer])
    chunks = list(arrivals(of, producer, rng, recording))
    if not chunks:
        return np.empty(0, np.int64), np.empty(0)
    return np.concatenate([numbers for numbers, _ in chunks]), np.concatenate([times for _, times in chunks])


def union(of: Workload, recording: Recording | None = None) -> tuple[Any, Any]:
    parts = [due(of, producer, recording) for producer in range(of.producers)]
    numbers, times = (np.concatenate([part[column] for part in parts]) for column in (0, 1))
    order = np.argsort(numbers)
    return numbers[order], times[order]


def recording(at: list[float]) -> Recording:
    return Recording(at=np.array(at), sizes=np.ones(len(at), np.int64), keys=(None,) * len(at))


@QUICK
@given(VARYING | st.builds(Constant, rate=RATES), SECONDS, st.floats(0, 2), PRODUCERS, st.integers(0, 99))
def test_times_ascend_within_the_run_and_are_the_same_for_a_seed(kind, seconds, warm_up, producers, seed):
    of = workload(kind, seconds=seconds, warm_up=warm_up, producers=producers)
    for producer in range(producers):
        numbers, times = due(of, producer, seed=seed)
        again = due(of, producer, seed=seed)
        assert np.array_equal(numbers, again[0])
        assert np.array_equal(times, again[1])
        assert np.all(np.diff(times) >= 0)
        assert np.all((times >= 0) & (times < warm_up + seconds))
        assert np.array_equal(numbers, producer + producers * np.arange(len(numbers)))


@QUICK
@given(VARYING, SECONDS, st.floats(0, 1), PRODUCERS)
def test_as_many_arrive_as_the_rate_says_in_each_half_of_the_run(kind, seconds, warm_up, producers):
    _, times = union(workload(kind, seconds=seconds, warm_up=warm_up, producers=producers))
    middle = warm_up + seconds / 2
    for begin, end in ((0.0, middle), (middle, warm_up + seconds)):
        fine = begin + (np.arange(20_000) + 0.5) * (end - begin) / 20_000
        expected = float(rate_at(kind, fine - warm_up, seconds).mean() * (end - begin))
        found = int(np.sum((times >= begin) & (times < end)))
        # Six standard deviations of a Poisson count, and what a coarse sum may be off at a jump.
        assert abs(found - expected) < 6 * math.sqrt(expected) + 6 + 0.001 * expected


@QUICK
@given(VARYING, st.lists(st.floats(-2, 4), min_size=1, max_size=50))
def test_no_rate_exceeds_the_highest_and_the_warm_up_has_the_first(kind, at):
    rates = rate_at(kind, np.array(at), 4.0)
    assert np.all(rates <= highest_rate(kind) * (1 + 1e-12))
    assert np.all(rates > 0)
    first = rate_at(kind, np.zeros(1), 4.0)[0]
    assert np.all(rates[np.array(at) <= 0] == first)


def test_poisson_gaps_are_exponential_also_over_several_producers():
    from scipy.stats import kstest

    _, times = union(workload(Poisson(rate=2000), seconds=10, producers=3))
    gaps = np.diff(np.sort(times))
    assert kstest(gaps * 2000, "expon").pvalue > 1e-3


def test_thinned_arrivals_are_those_of_the_rate():
    from scipy.stats import kstest

    ramp = Ramp(first=100, last=3000)
    _, times = union(workload(ramp, seconds=10, producers=2))
    # By the integral of its rate every Poisson process is one of rate 1, so places in it are uniform.
    places = 100 * times + 2900 * times**2 / 20
    assert kstest(places / (100 * 10 + 2900 * 5), "uniform").pvalue > 1e-3


@pytest.mark.parametrize(
    ("kind", "at", "expected"),
    [
        (Burst(rate=1, burst_rate=9, burst_seconds=2, every=10), [0, 3.9, 4.1, 5.9, 6.1, 14.5], [1, 1, 9, 9, 1, 9]),
        (Ramp(first=10, last=20), [0, 5, 10], [10, 15, 20]),
        (Step(rates=(1, 2, 3, 4)), [0, 2.4, 2.6, 9.9, 10], [1, 1, 2, 4, 4]),
        (Diurnal(lowest=2, highest=10, period=8), [0, 2, 4, 8], [2, 6, 10, 2]),
    ],
)
def test_rates_are_these(kind, at, expected):
    assert rate_at(kind, np.array(at, float), 10.0) == pytest.approx(expected)


@QUICK
@given(RATES, SECONDS, PRODUCERS)
def test_constant_arrivals_of_all_producers_are_evenly_apart(rate, seconds, producers):
    numbers, times = union(workload(Constant(rate=rate), seconds=seconds, producers=producers))
    assert np.array_equal(numbers, np.arange(len(numbers)))
    assert np.array_equal(times, numbers / rate)
    assert len(numbers) / rate >= seconds


@QUICK
@given(st.integers(1, 30_000), PRODUCERS)
def test_a_backlog_is_due_at_once(count, producers):
    numbers, times = union(workload(Backlog(requests=count), producers=producers))
    assert np.array_equal(numbers, np.arange(count))
    assert not times.any()


@QUICK
@given(st.lists(st.floats(0, 4), min_size=1, max_size=200).map(sorted), st.floats(0.5, 3), PRODUCERS)
def test_a_recording_is_played_as_it_was(at, speed, producers):
    of = workload(Recorded(path="busy.jsonl", speed=speed), seconds=0.9, warm_up=0.1, producers=producers)
    if at[-1] / speed < 0.5:
        with pytest.raises(WorkloadError, match=r"busy\.jsonl ends after"):
            union(of, recording(at))
        return
    numbers, times = union(of, recording(at))
    played = [each / speed for each in at if each / speed < 1.0]
    assert np.array_equal(numbers, np.arange(len(played)))
    assert times == pytest.approx(played)
