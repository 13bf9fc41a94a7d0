"""Figures of a stream in constant memory: quantiles of latencies, and the rate of the last seconds."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from itertools import accumulate

_LEAST_S = 0.0001
_GROWTH = 1.02
_BUCKETS = 700
"""From 0.1 ms by steps of 2 % to 105 s."""


class Latencies:
    """A histogram of seconds whose buckets grow by 2 %, so that a quantile is within 1 % (or 0.1 ms) of the true one.

    What is longer than the last bucket counts as 105 s.
    """

    def __init__(self) -> None:
        self._counts = [0] * _BUCKETS
        self._total = 0

    def add(self, seconds: float) -> None:
        place = math.ceil(math.log(max(seconds, _LEAST_S) / _LEAST_S, _GROWTH))
        self._counts[min(place, _BUCKETS - 1)] += 1
        self._total += 1

    def quantile(self, share: float) -> float | None:
        """The seconds that ``share`` of all, in (0, 1], took at most (nearest rank); None when there are none."""
        rank = math.ceil(share * self._total)
        if not rank:
            return None
        place = bisect_left(list(accumulate(self._counts)), rank)
        # The middle of the bucket (its upper bound is _LEAST_S * _GROWTH**place), in the logarithm.
        return _LEAST_S * _GROWTH ** (place - 0.5) if place else _LEAST_S


class Rate:
    """How fast a counter grew over the last ``window_s`` seconds."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._samples: deque[tuple[float, int]] = deque()

    def at(self, now: float, total: int) -> float:
        """Take the sample (``now`` in seconds, ``total``) and return the growth a second since the oldest one kept."""
        self._samples.append((now, total))
        while len(self._samples) > 2 and now - self._samples[1][0] >= self._window_s:
            self._samples.popleft()
        since, before = self._samples[0]
        return (total - before) / (now - since) if now > since else 0.0
