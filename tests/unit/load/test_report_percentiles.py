from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace_load.report.drawing import curve
from tests.support.load_results import latencies, latency_of

PRECISION = 1e-3  # of a histogram of three figures
MICROSECONDS = st.lists(st.integers(1, 60_000_000), min_size=1, max_size=60)


def holds(raw: np.ndarray, line) -> None:
    """Every point is the value of its rank, at most the histogram's precision too high, up to the slowest."""
    ordered = np.sort(raw)
    assert (np.diff(line.one_in) > 0).all()
    for one_in, milliseconds in zip(line.one_in, line.milliseconds, strict=True):
        rank = max(1, int(np.ceil(len(raw) * (1 - 1 / one_in) - 1e-9)))
        exact = ordered[-1] if one_in == line.one_in[-1] else ordered[rank - 1]
        assert exact <= round(milliseconds * 1000) <= exact * (1 + PRECISION)


@settings(max_examples=15, deadline=None)
@given(MICROSECONDS)
def test_percentiles_of_the_histogram_are_those_of_the_values(values):
    raw = np.array(values)
    line = curve([latency_of(raw)])
    assert line is not None
    holds(raw, line)


def test_histograms_of_several_runs_count_together():
    first, second = latencies(3000, 2.0, 1), latencies(2000, 50.0, 2)
    line = curve([latency_of(first), latency_of(second)])
    assert line is not None
    holds(np.concatenate([first, second]), line)


def test_no_latencies_have_no_curve_and_one_has_a_point():
    assert curve([]) is None
    line = curve([latency_of(np.array([900]))])
    assert line is not None
    assert line.milliseconds.tolist() == [0.9]
