"""Latencies as an HdrHistogram: three digits of each, in bounded memory, in the encoding that its other tools read."""

from __future__ import annotations

import numpy as np
from hdrh.histogram import HdrHistogram
from numpy.typing import NDArray

from headrace_load.result import Latency

HIGHEST_US = 24 * 3600 * 1_000_000
DIGITS = 3
_EXACT_BITS = 11  # three digits need 2048 steps; what is longer is kept to its first eleven bits


def latency(waits_us: NDArray[np.int64]) -> Latency | None:
    """Percentiles in milliseconds of waits in microseconds; None for no waits. Mean and maximum are exact.

    A wait below a microsecond, which clocks of whole milliseconds can give, counts as one.
    """
    if not len(waits_us):
        return None
    histogram = HdrHistogram(1, HIGHEST_US, DIGITS)
    for value, count in zip(*np.unique(_steps(waits_us), return_counts=True), strict=True):
        histogram.record_value(int(value), int(count))
    p50, p90, p99, p999 = (histogram.get_value_at_percentile(p) / 1000 for p in (50, 90, 99, 99.9))
    return Latency(
        count=len(waits_us),
        mean=float(waits_us.mean()) / 1000,
        p50=p50,
        p90=p90,
        p99=p99,
        p999=p999,
        max=float(waits_us.max()) / 1000,
        histogram=histogram.encode().decode("ascii"),
    )


def _steps(waits_us: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each wait as the lowest that the histogram keeps apart from others, so that few different ones are recorded."""
    waits = np.clip(waits_us, 1, HIGHEST_US)
    bits = np.frexp(waits.astype(np.float64))[1]
    shift = np.maximum(bits - _EXACT_BITS, 0)
    steps: NDArray[np.int64] = (waits >> shift) << shift
    return steps
