import math
import random
from datetime import datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from headrace_load.commands.run import slope, soaked
from headrace_load.commands.swap import Move, swapped
from tests.support.load_results import result_of


@given(st.integers(3, 9), st.floats(0, 1e4), st.floats(-100, 100))
def test_a_line_has_its_slope_without_doubt(minutes, begin, per_hour):
    seconds = list(range(60 * minutes))
    found = slope(seconds, [begin + per_hour * second / 3600 for second in seconds])
    assert found.mb_per_hour == pytest.approx(per_hour, abs=1e-4)
    assert found.high - found.low == pytest.approx(0, abs=1e-3)


def test_the_interval_holds_the_slope_nineteen_times_in_twenty():
    rng = random.Random(1)
    seconds = list(range(600))
    held = 0
    for _ in range(400):
        found = slope(seconds, [100 + 12 * second / 3600 + rng.gauss(0, 1) for second in seconds])
        held += found.low <= 12 <= found.high
    assert 360 <= held <= 396


@given(st.lists(st.floats(1, 1000), min_size=3, max_size=12))
def test_the_slope_and_its_interval_are_scipys(minutes):
    # One value a minute, where scipy has an interval.
    seconds = [60 * number for number in range(len(minutes))]
    found = slope(seconds, minutes)
    line = stats.linregress([second / 3600 for second in seconds], minutes)
    assert found.mb_per_hour == pytest.approx(line.slope, abs=1e-3)
    if not math.isnan(line.stderr):
        margin = line.stderr * stats.t.ppf(0.975, len(minutes) - 2)
        assert found.high - found.low == pytest.approx(2 * margin, rel=1e-6, abs=1e-2)


def test_two_minutes_have_no_slope():
    assert slope([0, 60], [1, 2]) is None


def test_a_soak_leaves_the_first_tenth_out_of_memory_and_sets_the_last_beside_it_in_latency():
    result = result_of(seconds=600)
    timeline = [
        msgspec.structs.replace(
            one,
            p99=10.0 if one.second < 60 else 15.0,
            rss_mb={"workers": 500.0 if one.second < 60 else 200 + one.second / 60, "broker": 900.0},
        )
        for one in result.timeline
    ]
    found = soaked(msgspec.structs.replace(result, timeline=tuple(timeline)))
    assert found.memory["workers"].mb_per_hour == pytest.approx(60)
    assert found.memory["broker"].mb_per_hour == pytest.approx(0)
    assert (found.first_p99, found.last_p99) == (10.0, 15.0)
    assert found.lines()[0].startswith("memory of workers: +60.00 MB an hour")
    assert found.lines()[-1].endswith("(+50%)")


def test_a_run_that_is_too_short_says_nothing():
    found = soaked(result_of(seconds=5))
    assert (found.memory, found.first_p99, found.lines()) == ({}, None, [])


def test_the_worst_wait_beside_a_swap_is_told_from_the_others():
    result = result_of(seconds=30)
    worst = {10: 80.0, 20: 300.0}
    timeline = tuple(
        msgspec.structs.replace(one, p50=1.0, p99=5.0, max=worst.get(one.second, 6.0)) for one in result.timeline
    )
    begun_ms = round(datetime.fromisoformat(result.begun_at).timestamp() * 1000)
    move = Move(version="v2", moved_ms=begun_ms + 10_200, first_ms=begun_ms + 10_300)
    never = Move(version="v3", moved_ms=begun_ms + 15_500)
    found = swapped(msgspec.structs.replace(result, timeline=timeline), [move, never], keep_previous=True)
    assert (found.beside.worst, found.apart.worst) == (80.0, 300.0)
    assert found.beside.seconds + found.apart.seconds == 30
    # From 9.2 to 11.3 s, and from 14.5 to 16.5 s.
    assert found.beside.seconds == 6
    assert found.lines()[1] == "first answer of the new version after 100 ms, never"
