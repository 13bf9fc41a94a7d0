"""From times of batches to a line and a batch bound; the clock is one that the answers themselves move."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.model.timing import ENOUGH, Timing, fit, measure, suggested, texts_for

positive = st.floats(1e-7, 1e-1)


class Machine:
    """Takes a n + b for a batch of n, on its own clock; the first call of a size takes longer."""

    def __init__(self, a: float, b: float) -> None:
        self.a, self.b, self.now = a, b, 0.0
        self.seen: list[int] = []

    def clock(self) -> float:
        return self.now

    def answer(self, texts: Sequence[bytes]) -> None:
        self.now += self.a * len(texts) + self.b + (0 if len(texts) in self.seen else 1.0)
        self.seen.append(len(texts))


@given(a=positive, b=positive)
def test_a_line_is_found_again(a: float, b: float) -> None:
    machine = Machine(a, b)
    line = fit(measure(machine.answer, [b"text"] * 64, 2, machine.clock))
    assert line.a == pytest.approx(a, rel=1e-4, abs=1e-9)
    assert line.b == pytest.approx(b, rel=1e-4, abs=1e-9)


@given(st.lists(positive, min_size=2, max_size=8))
def test_no_part_of_a_line_is_negative(seconds: list[float]) -> None:
    line = fit([Timing(1 << power, value) for power, value in enumerate(seconds)])
    assert line.a >= 0
    assert line.b >= 0
    assert line.a + line.b > 0


def test_every_size_passes_over_all_texts_and_the_fastest_pass_counts() -> None:
    machine = Machine(0.001, 0.002)
    timings = measure(machine.answer, [b"text"] * 8, 3, machine.clock)
    assert [timing.size for timing in timings] == [1, 2, 4, 8]
    assert [timing.seconds for timing in timings] == pytest.approx([0.003, 0.004, 0.006, 0.010])
    assert machine.seen.count(1) == 1 + 3 * 8
    assert machine.seen.count(8) == 1 + 3


@given(st.lists(positive, min_size=1, max_size=13))
def test_the_suggested_size_is_the_smallest_that_is_fast_enough(seconds: list[float]) -> None:
    timings = [Timing(1 << power, value) for power, value in enumerate(seconds)]
    chosen = suggested(timings)
    bound = ENOUGH * max(timing.rate for timing in timings)
    assert chosen.rate >= bound
    assert all(timing.rate < bound for timing in timings if timing.size < chosen.size)


def test_a_pass_fills_the_largest_batch_and_stays_short_with_a_slow_backend() -> None:
    quick, slow = Machine(1e-6, 0), Machine(0.01, 0)
    assert texts_for([b"a", b"b", b"c"], quick.answer, quick.clock, 8) == [
        b"a",
        b"b",
        b"c",
        b"a",
        b"b",
        b"c",
        b"a",
        b"b",
    ]
    # Half a second has room for 50 texts.
    assert len(texts_for([b"a"], slow.answer, slow.clock, 4096)) == 32
