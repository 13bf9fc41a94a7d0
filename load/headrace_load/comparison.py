"""Several contenders in turn, round by round, so that what drifts on the machine touches all of them.

How sure a difference is: paired rounds, Student's t over the logarithms of their ratios.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from scipy import stats

from headrace_load.result import Difference, Latency, Result

T = TypeVar("T")


def turns(names: Sequence[str], rounds: int) -> list[tuple[int, str]]:
    """Whose turn it is, as (round, name): round 0 warms up, and each round begins with another contender.

    >>> turns(["a", "b"], 2)
    [(0, 'a'), (0, 'b'), (1, 'b'), (1, 'a'), (2, 'a'), (2, 'b')]
    """
    return [
        (number, names[(number + place) % len(names)]) for number in range(rounds + 1) for place in range(len(names))
    ]


async def alternating(
    names: Sequence[str], rounds: int, one: Callable[[int, str], Awaitable[T]]
) -> dict[str, tuple[T, ...]]:
    """What ``one`` (round, name) came to in the rounds that count, by name; round 0 is run and left out."""
    found: dict[str, list[T]] = {name: [] for name in names}
    for number, name in turns(names, rounds):
        result = await one(number, name)
        if number:
            found[name].append(result)
    return {name: tuple(results) for name, results in found.items()}


CONFIDENCE = 0.95


def difference(figure: str, a: Sequence[float], b: Sequence[float], confidence: float = CONFIDENCE) -> Difference:
    """How ``b`` differs from ``a``, whose values of one index are of one round and above zero.

    The ratio is the geometric mean of the rounds' ratios. Its interval is that of the mean of their logarithms, which
    a ratio and its inverse share, by Student's t with rounds - 1 degrees of freedom. ``a`` and ``b`` of the Difference
    are medians. Raises ValueError for fewer than two rounds, or for values that have no logarithm.
    """
    if len(a) != len(b) or len(a) < 2:
        raise ValueError(f"{figure}: an interval needs two rounds of each contender; got {len(a)} and {len(b)}")
    if min(*a, *b) <= 0:
        raise ValueError(f"{figure}: ratios need values above zero")
    logs = [math.log(one / other) for one, other in zip(b, a, strict=True)]
    mean = statistics.fmean(logs)
    margin = float(stats.t.ppf((1 + confidence) / 2, len(logs) - 1)) * statistics.stdev(logs) / math.sqrt(len(logs))
    return Difference(
        figure=figure,
        a=statistics.median(a),
        b=statistics.median(b),
        ratio=math.exp(mean),
        low=math.exp(mean - margin),
        high=math.exp(mean + margin),
        confidence=confidence,
        rounds=len(logs),
    )


def _of_latency(figure: str) -> Callable[[Result], float | None]:
    def find(result: Result) -> float | None:
        latency: Latency | None = result.to_append
        return None if latency is None else float(getattr(latency, figure))

    return find


def _of_workers(figure: str) -> Callable[[Result], float | None]:
    def find(result: Result) -> float | None:
        used = result.used.get("workers")
        return None if used is None else float(getattr(used, figure))

    return find


FIGURES: dict[str, Callable[[Result], float | None]] = {
    "rate": lambda result: result.rate,
    "p50": _of_latency("p50"),
    "p99": _of_latency("p99"),
    "cpu_s_per_100k": _of_workers("cpu_s_per_100k"),
    "rss_mb_most": _of_workers("rss_mb_most"),
}
"""What is compared: answers a second, ms from due to append, and CPU seconds and memory of the workers."""


def differences(results: Mapping[str, Sequence[Result]]) -> dict[str, tuple[Difference, ...]]:
    """Each contender against the first, figure by figure.

    A figure that a run does not have is left out, and with fewer than two rounds there are none. A refused run's
    figures count: they are what was measured, and the run itself says that it was refused.
    """
    first, *others = results
    return {other: tuple(_known(results[first], results[other])) for other in others}


def _known(a: Sequence[Result], b: Sequence[Result]) -> list[Difference]:
    found = []
    for figure, value in FIGURES.items():
        of_a, of_b = [[number for one in runs if (number := value(one))] for runs in (a, b)]
        if len(of_a) == len(a) == len(of_b) == len(b) >= 2:
            found.append(difference(figure, of_a, of_b))
    return found
