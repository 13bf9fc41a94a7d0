"""Percentile curves from the histograms in results."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from hdrh.histogram import HdrHistogram
from msgspec import Struct
from numpy.typing import NDArray

from headrace_load.result import Latency

POINTS = 400


class Curve(Struct, frozen=True):
    """``milliseconds[i]`` is the latency that all but one in ``one_in[i]`` requests were at most; both rise."""

    one_in: NDArray[np.float64]
    milliseconds: NDArray[np.float64]


def curve(latencies: Iterable[Latency]) -> Curve | None:
    """The curve of all ``latencies`` together, up to the slowest request; None when they hold none.

    Each value is the highest of its bucket of the histogram, so it is at most the histogram's precision too high.
    """
    values, counts = _counted(latencies)
    total = int(counts.sum())
    if not total:
        return None
    upto = counts.cumsum()
    one_in = np.geomspace(1, total, min(POINTS, 2 * total)) if total > 1 else np.ones(1)
    # The k-th fastest has 1 - k / total of the requests above it; the last point is the slowest of all.
    ranks = np.ceil(total * (1 - 1 / one_in) - 1e-9).clip(1, total)
    ranks[-1] = total
    return Curve(one_in, values[np.searchsorted(upto, ranks)] / 1000)


def _counted(latencies: Iterable[Latency]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Microseconds and how many requests took them, of all histograms."""
    counted: dict[int, int] = {}
    for latency in latencies:
        histogram = HdrHistogram.decode(latency.histogram)
        for bucket in histogram.get_recorded_iterator():
            value = histogram.get_highest_equivalent_value(bucket.value_iterated_to)
            counted[value] = counted.get(value, 0) + bucket.count_at_value_iterated_to
    values = sorted(counted)
    return np.array(values, dtype=np.int64), np.array([counted[value] for value in values], dtype=np.int64)
