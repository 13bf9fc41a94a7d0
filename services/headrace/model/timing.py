"""How long a backend takes for a batch of n texts, as a line, and which batch bound follows from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np

ENOUGH = 0.9
"""The fraction of the best rate that is enough: past it a larger batch costs latency and gains little."""

_PASS_S = 0.5


class Timing(msgspec.Struct, frozen=True):
    """``seconds`` is the mean time of a batch of ``size`` texts, in the fastest of several passes over the texts."""

    size: int
    seconds: float

    @property
    def rate(self) -> float:
        """Texts a second."""
        return self.size / self.seconds


class Line(msgspec.Struct, frozen=True):
    """T(n) = ``a`` n + ``b`` in seconds."""

    a: float
    b: float

    def seconds(self, size: int) -> float:
        return self.a * size + self.b


class Report(msgspec.Struct, frozen=True):
    """A whole measurement: times in seconds, T(n) = ``a`` n + ``b``, ``max_batch`` as :func:`suggested`."""

    backend: str
    model: str
    threads: int
    texts: int
    mean_bytes: float
    timings: tuple[Timing, ...]
    a: float
    b: float
    max_batch: int


def texts_for(
    texts: Sequence[bytes], answer: Callable[[Sequence[bytes]], object], clock: Callable[[], float], largest: int
) -> list[bytes]:
    """The texts of one pass: ``texts``, repeated if need be, as many as the largest batch has.

    That is ``largest``, a power of two, or the power of two that takes about half a second with a slow backend.
    """
    probe = _repeated(texts, min(largest, 32))
    answer(probe)
    began = clock()
    answer(probe)
    affordable = max(1, int(_PASS_S * len(probe) / max(clock() - began, 1e-9)))
    return _repeated(texts, min(largest, 1 << (affordable.bit_length() - 1)))


def measure(
    answer: Callable[[Sequence[bytes]], object], texts: Sequence[bytes], rounds: int, clock: Callable[[], float]
) -> list[Timing]:
    """Time batches of 1, 2, 4, ... ``len(texts)``, which is a power of two. Each pass is over all texts.

    The sizes take turns, so that a busy machine slows all of them, and each is done once before it counts.
    """
    sizes = [1 << power for power in range(len(texts).bit_length())]
    best = dict.fromkeys(sizes, float("inf"))
    for size in sizes:
        answer(texts[:size])
    for _ in range(rounds):
        for size in sizes:
            began = clock()
            for first in range(0, len(texts), size):
                answer(texts[first : first + size])
            best[size] = min(best[size], (clock() - began) * size / len(texts))
    return [Timing(size, seconds) for size, seconds in best.items()]


def fit(timings: Sequence[Timing]) -> Line:
    """The line with the least squares of relative errors: a batch of one counts as much as one of a thousand.

    Neither part is below 0. Needs two sizes or more.
    """
    sizes = np.array([timing.size for timing in timings], np.float64)
    seconds = np.array([timing.seconds for timing in timings], np.float64)
    ones = np.ones_like(sizes)
    # Each equation is divided by its seconds, which makes its error a relative one.
    a, b = np.linalg.lstsq(np.stack([sizes, ones], axis=1) / seconds[:, None], ones, rcond=None)[0]
    if b < 0:
        shares = sizes / seconds
        a, b = shares.sum() / (shares * shares).sum(), 0.0
    elif a < 0:
        shares = ones / seconds
        a, b = 0.0, shares.sum() / (shares * shares).sum()
    return Line(float(a), float(b))


def suggested(timings: Sequence[Timing]) -> Timing:
    """The smallest size whose rate is ENOUGH of the best one."""
    peak = max(timing.rate for timing in timings)
    return min((timing for timing in timings if timing.rate >= ENOUGH * peak), key=lambda timing: timing.size)


def _repeated(texts: Sequence[bytes], count: int) -> list[bytes]:
    return [texts[place % len(texts)] for place in range(count)]
