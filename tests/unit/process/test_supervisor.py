import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.process.lifecycle import EXIT_DONE, EXIT_REFUSED, EXIT_SETTINGS, RestartPolicy, Restarts

POLICY = RestartPolicy(first=1.0, longest=5.0, healthy=60.0)


def test_waits_double_up_to_the_longest() -> None:
    restarts = Restarts(POLICY)
    assert [restarts.after(1, 0.0) for _ in range(5)] == [1.0, 2.0, 4.0, 5.0, 5.0]


def test_a_healthy_run_begins_anew_at_the_first_wait() -> None:
    restarts = Restarts(POLICY)
    restarts.after(-9, 1.0)
    restarts.after(-9, 1.0)
    assert restarts.after(-9, 60.0) == 1.0
    assert restarts.after(-9, 59.9) == 2.0


@pytest.mark.parametrize("code", [EXIT_DONE, EXIT_SETTINGS, EXIT_REFUSED])
def test_what_would_end_the_same_way_is_not_started_again(code: int) -> None:
    assert Restarts(POLICY).after(code, 0.0) is None


@given(st.lists(st.floats(min_value=0, max_value=1000), max_size=2000))
def test_a_wait_is_never_shorter_than_the_first_nor_longer_than_the_longest(runs: list[float]) -> None:
    restarts = Restarts(POLICY)
    waits = [restarts.after(1, ran) for ran in runs]
    assert all(wait is not None and POLICY.first <= wait <= POLICY.longest for wait in waits)
