import asyncio
import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_load.commands.sweep import Sweep, at_rate, bisect, lag_growth, tried
from headrace_load.result import Second
from headrace_load.workload.spec import Backlog, MadeTexts, Poisson, Workload, WorkloadError
from tests.support.load_results import audit_of, result_of


def bisected(limit: float, low: float, high: float, within: float):
    asked: list[float] = []

    async def borne(rate: float) -> bool:
        asked.append(rate)
        return rate <= limit

    return asyncio.run(bisect(borne, low, high, within=within)), asked


@given(st.floats(1, 1e6), st.floats(1, 1e6), st.floats(1.01, 1e4), st.floats(0.01, 1))
def test_of_a_system_with_a_limit_the_limit_is_found_in_few_tries(limit, low, times, within):
    high = low * times
    (borne, refused), asked = bisected(limit, low, high, within)
    if limit < low:
        assert (borne, refused) == (None, low)
    elif limit >= high:
        assert (borne, refused) == (high, None)
    else:
        assert borne <= limit < refused <= borne * (1 + within)
    assert {rate for rate in (borne, refused) if rate is not None} <= set(asked)
    steps = math.log2(max(1.0, math.log(times) / math.log1p(within)))
    assert len(asked) <= 2 + math.ceil(steps + 1e-9)


@pytest.mark.parametrize(("low", "high", "within"), [(2, 1, 0.1), (0, 1, 0.1), (1, 1, 0.1), (1, 2, 0)])
def test_rates_out_of_order_are_refused(low, high, within):
    with pytest.raises(ValueError, match="low rate to a higher one"):
        bisected(1, low, high, within)


def test_a_run_in_the_bound_is_borne():
    one = tried(2000, result_of(middle_ms=4), 200)
    assert one.fault is None
    assert one.line().endswith("; borne")


def test_each_fault_is_named():
    fine = result_of(middle_ms=4)
    assert "p99 was" in tried(2000, fine, 5).fault
    late = tried(2000, msgspec.structs.replace(fine, refused="the producers were late"), 200)
    assert late.harness
    assert "producers were late" in late.fault
    lost = tried(2000, msgspec.structs.replace(fine, audit=audit_of(60_000, lost=3)), 200)
    assert "audit failed" in lost.fault
    assert not lost.harness
    assert not lost.kept
    assert "nothing was answered" in tried(2000, msgspec.structs.replace(fine, to_append=None), 200).fault
    growing = tuple(msgspec.structs.replace(one, lag=100 * one.second) for one in fine.timeline)
    assert "lag grew by 100" in tried(2000, msgspec.structs.replace(fine, timeline=growing), 200).fault


def second(number: int, lag: int) -> Second:
    return Second(second=number, due=0, sent=0, answered=0, lag=lag, p50=None, p99=None, max=None)


@given(st.integers(3, 50), st.integers(0, 1000), st.integers(0, 1000))
def test_the_lags_growth_is_the_slope_of_a_line(seconds, begin, slope):
    line = [second(number, begin + slope * number) for number in range(seconds)]
    assert lag_growth(line) == pytest.approx(slope)


def test_two_seconds_have_no_trend():
    assert lag_growth([second(0, 1), second(1, 100)]) is None


def sweep_of(borne, refused, *tries) -> str:
    return Sweep(name="s", p99_ms=50, borne=borne, refused=refused, tries=tries).verdict()


def test_the_verdict_says_who_set_the_limit():
    fine = result_of(middle_ms=4)
    assert "Not even 100/s" in sweep_of(None, 100, tried(100, fine, 5))
    assert "At least 500/s" in sweep_of(500, None, tried(500, fine, 200))
    assert "500/s; at 600/s: p99 was" in sweep_of(500, 600, tried(600, fine, 5))
    late = msgspec.structs.replace(fine, refused="the producers were late")
    assert "the system may bear more" in sweep_of(500, 600, tried(600, late, 200))


def test_a_sweep_sets_the_rate_of_arrivals_that_have_one():
    workload = Workload(arrivals=Poisson(rate=1), texts=MadeTexts())
    assert at_rate(workload, 7).arrivals == Poisson(rate=7)
    with pytest.raises(WorkloadError, match="constant or poisson"):
        at_rate(msgspec.structs.replace(workload, arrivals=Backlog(requests=1)), 7)
