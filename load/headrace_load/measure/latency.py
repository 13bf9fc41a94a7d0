"""Latencies as an HdrHistogram: three digits of each, in bounded memory, in the encoding that its other tools read.

Whether the harness itself kept to its times; a run in which it did not says nothing about who was measured.

The run second by second.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from hdrh.histogram import HdrHistogram
from numpy.typing import NDArray

from headrace_load.measure.columns import Columns
from headrace_load.result import Latency, Lateness, Second

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


MOST_LATE = 0.01


def lateness(late_us: NDArray[np.int64], allowed_ms: float) -> Lateness | None:
    """How much later than due requests were sent, in milliseconds; None when none was."""
    if not len(late_us):
        return None
    p50, p99 = np.percentile(late_us, (50, 99)) / 1000
    return Lateness(
        p50=float(p50),
        p99=float(p99),
        max=float(late_us.max()) / 1000,
        late=float((late_us > allowed_ms * 1000).mean()),
    )


def too_late(found: Lateness | None, allowed_ms: float, *, complete: bool) -> str | None:
    """Why there is no verdict, None when the producers were good enough. ``complete``: they sent all that was due."""
    if complete and (found is None or found.late <= MOST_LATE):
        return None
    share = "" if found is None else f"{found.late:.1%} of their requests were sent more than {allowed_ms:g} ms late"
    unsent = "" if complete else "they could not send all that was due"
    said = " and ".join(filter(None, (share, unsent)))
    return f"the producers were late: {said}. Use more producers, another machine for them, or a lower rate."


MOST_SECONDS = 24 * 3600
Sample = tuple[int, dict[str, float]]
"""When (microseconds since the Unix epoch), and the megabytes in use by name."""


def timeline(
    sent: Columns,
    first: NDArray[np.int64],
    answered: Columns,
    waits_us: NDArray[np.int64],
    begin_us: int,
    samples: Sequence[Sample],
) -> tuple[Second, ...]:
    """Columns for each second from ``begin_us`` to the last answer or request.

    ``first`` is each request's answer in ``answered``, -1 where there is none, and ``waits_us`` the wait of those that
    have one. Requests from before ``begin_us`` count where they are still on their way, or answered, behind it.
    """
    has = first >= 0
    appended = answered["appended_us"][first[has]]
    times = [sent["due_us"], appended]
    end_us = max((int(column.max()) for column in times if len(column)), default=begin_us)
    count = min((end_us - begin_us) // 1_000_000 + 1, MOST_SECONDS)

    def counts(column: NDArray[np.int64]) -> NDArray[np.int64]:
        seconds = (column - begin_us) // 1_000_000
        return np.bincount(seconds[(seconds >= 0) & (seconds < count)], minlength=count)

    def until(column: NDArray[np.int64]) -> NDArray[np.int64]:
        ends = begin_us + 1_000_000 * np.arange(1, count + 1)
        return np.searchsorted(np.sort(column), ends)

    due, gone, back = counts(sent["due_us"]), counts(sent["sent_us"]), counts(appended)
    lag = until(sent["acked_us"][sent["acked_us"] >= 0]) - until(appended)
    waits = _by_second((sent["due_us"][has] - begin_us) // 1_000_000, waits_us, count)
    memory = {(at_us - begin_us) // 1_000_000: used for at_us, used in samples}
    return tuple(
        Second(
            second=number,
            due=int(due[number]),
            sent=int(gone[number]),
            answered=int(back[number]),
            lag=max(0, int(lag[number])),
            p50=_ms(waits[number], 50),
            p99=_ms(waits[number], 99),
            max=_ms(waits[number], 100),
            rss_mb=memory.get(number, {}),
        )
        for number in range(count)
    )


def _by_second(seconds: NDArray[np.int64], values: NDArray[np.int64], count: int) -> list[NDArray[np.int64]]:
    order = np.argsort(seconds, kind="stable")
    edges = np.searchsorted(seconds[order], np.arange(count + 1))
    return [values[order[start:end]] for start, end in pairwise(edges)]


def _ms(waits_us: NDArray[np.int64], percent: float) -> float | None:
    return float(np.percentile(waits_us, percent)) / 1000 if len(waits_us) else None
