import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.batching import REACH, ClockAlarm, ServiceTime


@given(st.floats(1e-6, 1e-3), st.floats(1e-5, 1e-2))
def test_the_fit_finds_a_straight_line(slope, base):
    service = ServiceTime()
    for requests in (1, 512, 30, 200, 7):
        service.observe(requests, slope * requests + base)
    assert service.predict(400) == pytest.approx(slope * 400 + base, rel=1e-3)


def test_batches_of_one_size_count_as_proportional():
    service = ServiceTime()
    for _ in range(5):
        service.observe(10, 0.002)
    assert service.predict(100) == pytest.approx(0.02)


def test_a_batch_far_above_all_that_were_seen_is_predicted_as_one_of_a_size_that_is_known():
    service = ServiceTime()
    for _ in range(5):
        service.observe(1, 0.012)
    assert service.predict(1024) == pytest.approx(REACH * 0.012)


def test_nothing_observed_predicts_nothing():
    assert ServiceTime().predict(512) == 0.0


def test_the_fit_forgets_a_slow_start():
    service = ServiceTime()
    for requests in range(1, 11):
        service.observe(requests, 1.0)
    for requests in range(1, 301):
        service.observe(requests, 0.001 * requests)
    assert service.predict(512) < 0.6


def test_expiries_without_lag_raise_the_clock_alarm_once():
    alarm = ClockAlarm(after=5)
    raised = [alarm.observe(expired=2, in_time=0, lagging=False) for _ in range(5)]
    assert raised == [False, False, True, False, False]


@pytest.mark.parametrize("relief", [{"in_time": 1, "lagging": False}, {"in_time": 0, "lagging": True}])
def test_load_is_no_clock_fault(relief):
    alarm = ClockAlarm(after=5)
    alarm.observe(expired=4, in_time=0, lagging=False)
    assert not alarm.observe(expired=4, **relief)
    assert not alarm.observe(expired=4, in_time=0, lagging=False)
