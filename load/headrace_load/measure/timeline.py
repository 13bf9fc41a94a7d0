"""The run second by second."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from headrace_load.measure.joined import Rows
from headrace_load.result import Second

MOST_SECONDS = 24 * 3600
Sample = tuple[int, dict[str, float]]
"""When (microseconds since the Unix epoch), and the megabytes in use by name."""


def timeline(
    sent: Rows,
    first: NDArray[np.int64],
    answered: Rows,
    waits_us: NDArray[np.int64],
    begin_us: int,
    samples: Sequence[Sample],
) -> tuple[Second, ...]:
    """Rows for each second from ``begin_us`` to the last answer or request.

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
