"""When requests are due: numbers and times in chunks, of one producer among several.

A Poisson process whose rate varies is made by thinning one at its highest rate (Lewis and Shedler, Simulation of
nonhomogeneous Poisson processes by thinning, Naval Research Logistics Quarterly 26, 1979). The sum of independent
Poisson processes is one again, so each producer draws its own at its share of the rate and the split is exact.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from headrace_load.workload.recording import Recording
from headrace_load.workload.spec import (
    Backlog,
    Burst,
    Constant,
    Diurnal,
    Poisson,
    Ramp,
    Recorded,
    Step,
    Workload,
    WorkloadError,
)

CHUNK = 8192
"""Requests, or candidates of a thinning, made at once."""

SPAN = 0.5
"""The share of a run that a recording has to span: a quiet end may be real, a run that is half empty is a mistake."""

Chunk = tuple[NDArray[np.int64], NDArray[np.float64]]
Floats = NDArray[np.float64]


def arrivals(
    workload: Workload, producer: int, rng: np.random.Generator, recording: Recording | None = None
) -> Iterator[Chunk]:
    """Yield the numbers and the times, in seconds since the run's beginning, of what ``producer`` sends.

    Times ascend and are below ``warm_up + seconds``. Numbers are unique over all producers; of constant, recorded and
    backlog arrivals they are 0, 1, 2, ... over the whole workload. ``recording`` is that of Recorded arrivals. Raises
    WorkloadError when it ends before the run does.
    """
    whole_s = workload.warm_up + workload.seconds
    match workload.arrivals:
        case Backlog(requests=count):
            for numbers in _numbers(producer, workload.producers, count):
                yield numbers, np.zeros(len(numbers))
        case Constant(rate=rate):
            yield from _evenly(rate, producer, workload.producers, whole_s)
        case Recorded() as recorded:
            if recording is None:
                raise TypeError("recorded arrivals need their recording")
            yield from _played(recorded, recording, producer, workload.producers, whole_s)
        case Poisson() | Burst() | Ramp() | Step() | Diurnal() as varying:
            times = _thinned(varying, workload, rng)
            first = producer
            for due in times:
                numbers = first + workload.producers * np.arange(len(due), dtype=np.int64)
                first += workload.producers * len(due)
                yield numbers, due


def rate_at(varying: Poisson | Burst | Ramp | Step | Diurnal, t: Floats, seconds: float) -> Floats:
    """Requests a second at ``t`` seconds behind the warm-up, of a run of ``seconds``; times before 0 count as 0."""
    t = np.maximum(t, 0.0)
    match varying:
        case Poisson(rate=rate):
            return np.full(len(t), rate)
        case Burst() as burst:
            from_middle = np.abs(t % burst.every - burst.every / 2)
            return np.where(from_middle < burst.burst_seconds / 2, burst.burst_rate, burst.rate)
        case Ramp(first=first, last=last):
            return first + (last - first) * t / seconds
        case Step(rates=rates):
            step = np.minimum(t * len(rates) / seconds, len(rates) - 1).astype(np.int64)
            return np.asarray(rates)[step]
        case Diurnal() as day:
            return day.lowest + (day.highest - day.lowest) * (1 - np.cos(2 * np.pi * t / day.period)) / 2


def highest_rate(varying: Poisson | Burst | Ramp | Step | Diurnal) -> float:
    """The rate that :func:`rate_at` never exceeds."""
    match varying:
        case Poisson(rate=rate):
            return rate
        case Burst() as burst:
            return max(burst.rate, burst.burst_rate)
        case Ramp(first=first, last=last):
            return max(first, last)
        case Step(rates=rates):
            return max(rates)
        case Diurnal(highest=highest):
            return highest


def _thinned(
    varying: Poisson | Burst | Ramp | Step | Diurnal, workload: Workload, rng: np.random.Generator
) -> Iterator[Floats]:
    most = highest_rate(varying)
    mean_gap = workload.producers / most
    end = workload.warm_up + workload.seconds
    now = 0.0
    while now < end:
        candidates = now + np.cumsum(rng.exponential(mean_gap, CHUNK))
        now = float(candidates[-1])
        rates = rate_at(varying, candidates - workload.warm_up, workload.seconds)
        kept = candidates[(rng.random(CHUNK) * most < rates) & (candidates < end)]
        if len(kept):
            yield kept


def _numbers(producer: int, producers: int, end: int) -> Iterator[NDArray[np.int64]]:
    for first in range(producer, end, producers * CHUNK):
        yield np.arange(first, min(end, first + producers * CHUNK), producers, dtype=np.int64)


def _evenly(rate: float, producer: int, producers: int, whole_s: float) -> Iterator[Chunk]:
    # One more than there can be: the comparison of times decides, not the rounding of the product.
    for numbers in _numbers(producer, producers, int(rate * whole_s) + 2):
        due = numbers / rate
        inside = due < whole_s
        if inside.any():
            yield numbers[inside], due[inside]


def _played(recorded: Recorded, recording: Recording, producer: int, producers: int, whole_s: float) -> Iterator[Chunk]:
    due = recording.at / recorded.speed
    if due[-1] < whole_s * SPAN:
        raise WorkloadError(
            f"{recorded.path} ends after {due[-1]:.1f} s at speed {recorded.speed:g}, and the run takes {whole_s:g} s "
            "with its warm-up. Make seconds or warm_up smaller, or record for longer."
        )
    for numbers in _numbers(producer, producers, int(np.searchsorted(due, whole_s))):
        yield numbers, due[numbers]
