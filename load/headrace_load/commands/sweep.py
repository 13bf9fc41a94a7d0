"""`headrace-load sweep`: the highest rate that keeps p99 under a bound."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from headrace_load.commands import options
from headrace_load.comparison import report
from headrace_load.result import Result, write
from headrace_load.sweep import Sweep, Try, bisect, tried
from headrace_load.workload.spec import Constant, Poisson, Workload, WorkloadError, read_workload

SWEEP = "sweep.json"


def sweep(
    workload: options.WorkloadFile,
    *,
    p99: Annotated[float, typer.Option(min=0.001, metavar="MS", help="The bound, from due to append.")],
    low: Annotated[float, typer.Option(min=0.001, help="Requests a second that should be borne.")] = 100.0,
    high: Annotated[float, typer.Option(min=0.001, help="Requests a second that should not.")] = 100_000.0,
    seconds: Annotated[float | None, typer.Option(help="Of a try, instead of the workload's own.")] = None,
    within: Annotated[float, typer.Option(min=0.001, help="Stop when the two rates are so near each other.")] = 0.05,
    contender: options.OneContender = None,
    bootstrap: options.Bootstrap = None,
    broker: options.Broker = None,
    prefix: options.Prefix = None,
    sets: options.Sets = None,
    metrics: options.Metrics = None,
    worker_pids: options.WorkerPids = None,
    broker_pids: options.BrokerPids = None,
    partitions: options.Partitions = 4,
    out: options.Out = None,
) -> None:
    """Find the highest rate at which p99 stays under a bound, by bisection; the workload's own rate does not count.

    A try is a whole run, after one at the lowest rate that warms up. Ends with 1 when an audit failed, or nothing was
    borne.
    """
    asked = options.asked(
        bootstrap,
        prefix,
        sets,
        broker=broker,
        metrics=metrics,
        worker_pids=worker_pids,
        broker_pids=broker_pids,
        partitions=partitions,
    )
    if low >= high:
        raise typer.BadParameter(f"a sweep goes up: --low {low:g} is not below --high {high:g}")
    load, answering = read_workload(workload), options.contender_of(contender, asked)
    if seconds is not None:
        load = msgspec.structs.replace(load, seconds=seconds)
    at_rate(load, low)  # says what is wrong with the workload before anything starts
    folder, to = options.folder_for(out, f"sweep-{workload.stem}"), options.console()

    async def work() -> bool:
        tries: list[Try] = []
        results: dict[float, Result] = {}
        async with options.runner(asked, folder, to) as runner:
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

    options.ended(work)


def at_rate(workload: Workload, rate: float) -> Workload:
    """``workload`` with another rate. Raises WorkloadError where its arrivals have no single one."""
    if not isinstance(workload.arrivals, Constant | Poisson):
        raise WorkloadError("a sweep sets the rate itself: the workload's arrivals have to be constant or poisson")
    return msgspec.structs.replace(workload, arrivals=msgspec.structs.replace(workload.arrivals, rate=rate))
