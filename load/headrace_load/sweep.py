"""The highest rate that a system bears: bisection on a log scale over whole runs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Awaitable, Callable, Sequence

from msgspec import Struct

from headrace_load.result import Result, Second

FORMAT = "headrace-load/sweep/1"


class Try(Struct, frozen=True, kw_only=True):
    """One run at ``rate`` requests a second. ``fault`` says why it does not count as borne; None when it does.

    ``harness`` is whether the harness, not what it loads, was the bottleneck. Milliseconds; ``lag_growth`` in requests
    a second.
    """

    rate: float
    fault: str | None
    harness: bool
    p50: float | None
    p99: float | None
    lag_growth: float | None
    kept: bool

    def line(self) -> str:
        """The try in one line."""
        p50, p99 = (("none" if one is None else f"{one:,.1f} ms") for one in (self.p50, self.p99))
        outcome = "borne" if self.fault is None else f"not borne: {self.fault}"
        return f"{self.rate:,.0f}/s: p50 {p50}, p99 {p99}; {outcome}"


class Sweep(Struct, frozen=True, kw_only=True, tag=FORMAT, tag_field="format"):
    """All tries in their order, and what they came to.

    ``borne`` is the highest rate that was borne, None when not even the lowest was; ``refused`` the lowest above it
    that was not, None when all were borne.
    """

    name: str
    p99_ms: float
    borne: float | None
    refused: float | None
    tries: tuple[Try, ...]

    def verdict(self) -> str:
        """The outcome in a sentence, with who set the limit."""
        if self.borne is None:
            return f"Not even {self.refused:,.0f}/s kept p99 under {self.p99_ms:g} ms."
        if self.refused is None:
            return f"At least {self.borne:,.0f}/s: the highest rate asked for was borne. Try a higher --high."
        limit = next(one for one in self.tries if one.rate == self.refused)
        whose = "the harness was the bottleneck there, so the system may bear more" if limit.harness else limit.fault
        return f"{self.borne:,.0f}/s; at {self.refused:,.0f}/s: {whose}"


async def bisect(
    borne: Callable[[float], Awaitable[bool]], low: float, high: float, *, within: float
) -> tuple[float | None, float | None]:
    """The highest rate in [low, high] for which ``borne`` says yes and the lowest above it for which it says no.

    Their ratio is at most 1 + ``within``. (None, low) when ``low`` is not borne, (high, None) when ``high`` is. Each
    step halves the ratio's logarithm, so for a system that bears all rates up to some limit the steps are
    2 + log2(log(high / low) / log(1 + within)), rounded up. Raises ValueError for rates out of order.
    """
    if not 0 < low < high or within <= 0:
        raise ValueError(f"a sweep goes from a low rate to a higher one, not from {low:g} to {high:g}")
    if not await borne(low):
        return None, low
    if await borne(high):
        return high, None
    while high / low > 1 + within:
        middle = math.sqrt(low * high)
        if await borne(middle):
            low = middle
        else:
            high = middle
    return low, high


def tried(rate: float, result: Result, p99_ms: float) -> Try:
    """Judge a run of ``rate`` requests a second: p99 to the append, the lag's trend, the audit, the producers."""
    latency, growth = result.to_append, lag_growth(result.measured())
    fault, harness = None, False
    if not result.audit.kept:
        fault = f"the audit failed: {result.audit.line()}"
    elif result.refused is not None:
        fault, harness = result.refused, True
    elif latency is None:
        fault = "nothing was answered"
    elif latency.p99 > p99_ms:
        fault = f"p99 was {latency.p99:,.1f} ms"
    elif growth is not None and growth * result.seconds > rate * p99_ms / 1000:
        # At its p99 a run that holds still has at most rate x p99 requests on the way.
        fault = f"the lag grew by {growth:,.0f} requests a second"
    return Try(
        rate=rate,
        fault=fault,
        harness=harness,
        p50=None if latency is None else latency.p50,
        p99=None if latency is None else latency.p99,
        lag_growth=growth,
        kept=result.audit.kept,
    )


def lag_growth(timeline: Sequence[Second]) -> float | None:
    """The least-squares slope of the lag over the run's seconds, in requests a second; None for fewer than three."""
    if len(timeline) < 3:
        return None
    return statistics.linear_regression([one.second for one in timeline], [one.lag for one in timeline]).slope
