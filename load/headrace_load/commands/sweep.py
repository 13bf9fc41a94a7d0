"""`headrace-load sweep`: the highest rate that keeps p99 under a bound, by bisection on a log scale over whole runs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated

import msgspec
import typer
from msgspec import Struct

from headrace_load.commands import options
from headrace_load.result import Result, Second, write
from headrace_load.runner import report
from headrace_load.target import TargetOptions
from headrace_load.workload.spec import Constant, Poisson, Workload, WorkloadError, read_workload

FORMAT = "headrace-load/sweep/1"


class Try(Struct, frozen=True, kw_only=True):
    """One run at ``rate`` requests a second. ``fault`` says why the rate was not borne; None if it was.

    ``harness``: the harness, not the system, was the bottleneck. Times in milliseconds, ``lag_growth`` in requests a
    second.
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
    """All tries in their order, and the result.

    ``borne`` is the highest rate that was borne, None if not even the lowest was. ``refused`` is the lowest higher rate
    that was not borne, None if all were.
    """

    name: str
    p99_ms: float
    borne: float | None
    refused: float | None
    tries: tuple[Try, ...]

    def verdict(self) -> str:
        """The result in a sentence, with the cause of the limit."""
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
    """Evaluate a run at ``rate`` requests a second: p99 to the append, the trend of the lag, the audit, the
    producers.
    """
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
        # A steady run has at most rate x p99 requests on the way.
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


SWEEP = "sweep.json"


@options.takes_target(options.ANY)
def sweep(
    workload: options.WorkloadFile,
    *,
    p99: Annotated[float, typer.Option(min=0.001, metavar="MS", help="The bound, from due to append.")],
    low: Annotated[float, typer.Option(min=0.001, help="Requests a second that should be borne.")] = 100.0,
    high: Annotated[float, typer.Option(min=0.001, help="Requests a second that should not be borne.")] = 100_000.0,
    seconds: Annotated[float | None, typer.Option(help="Seconds of a try. By default the workload's own.")] = None,
    within: Annotated[
        float, typer.Option(min=0.001, help="Stop when the two rates differ by this share at most.")
    ] = 0.05,
    contender: options.OneContender = None,
    target: TargetOptions,
    out: options.Out = None,
) -> None:
    """Find the highest rate at which p99 stays under a bound, by bisection; the workload's own rate does not count.

    A try is a whole run, after one at the lowest rate that warms up. Ends with 1 when an audit failed, or nothing was
    borne.
    """
    if low >= high:
        raise typer.BadParameter(f"a sweep goes up: --low {low:g} is not below --high {high:g}")
    load, answering = read_workload(workload), options.contender_of(contender, target)
    if seconds is not None:
        load = msgspec.structs.replace(load, seconds=seconds)
    at_rate(load, low)  # says what is wrong with the workload before anything starts
    folder, to = options.folder_for(out, f"sweep-{workload.stem}"), options.console()

    async def work() -> bool:
        tries: list[Try] = []
        results: dict[float, Result] = {}
        async with options.runner(target, folder, to) as runner:
            await runner.run(at_rate(load, low), answering, name="warm-up", number=1)

            async def borne(rate: float) -> bool:
                result = await runner.run(at_rate(load, rate), answering, name=f"{rate:,.0f}/s", number=len(tries) + 2)
                one = tried(rate, result, p99)
                tries.append(one)
                results[rate] = result
                to.print(one.line(), markup=False, soft_wrap=True)
                return one.fault is None

            best, refused = await bisect(borne, low, high, within=within)
        found = Sweep(name=workload.stem, p99_ms=p99, borne=best, refused=refused, tries=tuple(tries))
        write(found, folder / SWEEP)
        if best is not None:
            report(results[best], folder, to)
        to.print(found.verdict(), markup=False, soft_wrap=True)
        return best is not None and all(one.kept for one in tries)

    options.run_to_exit(work())


def at_rate(workload: Workload, rate: float) -> Workload:
    """``workload`` with another rate. Raises WorkloadError if its arrivals have no single rate."""
    if not isinstance(workload.arrivals, Constant | Poisson):
        raise WorkloadError("a sweep sets the rate itself: the workload's arrivals have to be constant or poisson")
    return msgspec.structs.replace(workload, arrivals=msgspec.structs.replace(workload.arrivals, rate=rate))
