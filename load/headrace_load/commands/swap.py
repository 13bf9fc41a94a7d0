"""`headrace-load swap`: an alias moved under a steady load.

`headrace-load soak`: one long run, whether memory grows in it and latency drifts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from headrace_load.commands import options
from headrace_load.comparison import RESULT, Runner, report, stand
from headrace_load.result import Result, write
from headrace_load.soak import soaked
from headrace_load.swap import Move, follower, swapped, swapping
from headrace_load.system import Start, System
from headrace_load.workload.spec import Constant, Workload, read_workload

SWAPS = "swaps.json"
BEFORE_S = 2.0
"""Between the start of the worker and the first swap, beside the warm-up and a whole distance."""


def swap(
    first: Annotated[Path, typer.Argument(metavar="A", exists=True, dir_okay=False, help="An artifact.")],
    second: Annotated[
        Path, typer.Argument(metavar="B", exists=True, dir_okay=False, help="Another of the same labels.")
    ],
    *,
    texts: options.TextsFile = None,
    rate: Annotated[float, typer.Option(min=1, help="Requests a second.")] = 500.0,
    swaps: Annotated[int, typer.Option(min=1, help="How often the alias is moved.")] = 6,
    every: Annotated[float, typer.Option(min=0.5, help="Seconds between two moves.")] = 5.0,
    bootstrap: options.Bootstrap = None,
    broker: options.Broker = None,
    prefix: options.Prefix = None,
    sets: options.Sets = None,
    partitions: options.Partitions = 4,
    out: options.Out = None,
) -> None:
    """Move an alias between two artifacts under a steady load, and look at the waits beside each swap.

    It runs twice: with a worker that loads at every swap, and with one that holds the previous version in memory. Ends
    with 1 when an audit failed or the figures don't stand.
    """
    asked = options.asked(bootstrap, prefix, sets, broker=broker, partitions=partitions)
    workload = Workload(
        arrivals=Constant(rate=rate),
        texts=options.texts_of(texts),
        seconds=BEFORE_S + every * (swaps + 2),
    )
    folder, to = options.folder_for(out, "swap"), options.console()

    async def one(runner: Runner, number: int, *, keep_previous: bool) -> Result:
        contender, moves = follower(keep_previous=keep_previous), list[Move]()

        def around(start: Start, system: System) -> Start:
            delay_s = workload.warm_up + BEFORE_S + every
            return swapping(start, system, (first, second), delay_s=delay_s, every_s=every, swaps=swaps, moves=moves)

        result = await runner.run(workload, contender, name=contender.name, number=number, around=around)
        found, own = swapped(result, moves, keep_previous=keep_previous), folder / f"{number:02}"
        write(found, own / SWAPS)
        report(msgspec.structs.replace(result, notes=(*result.notes, *found.lines())), own, to)
        return result

    async def work() -> bool:
        async with options.runner(asked, folder, to) as runner:
            return stand([await one(runner, number, keep_previous=number == 2) for number in (1, 2)])

    options.ended(work)


SOAK = "soak.json"


def soak(
    workload: options.WorkloadFile,
    *,
    minutes: Annotated[float, typer.Option(min=0.05, help="How long, instead of the workload's own seconds.")] = 30.0,
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
    """Run a workload for long, and say how memory grew and how latency drifted.

    Ends with 1 when the audit failed or the figures don't stand.
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
    load = msgspec.structs.replace(read_workload(workload), seconds=60 * minutes)
    answering = options.contender_of(contender, asked)
    folder, to = options.folder_for(out, f"soak-{workload.stem}"), options.console()

    async def work() -> bool:
        async with options.runner(asked, folder, to) as runner:
            result = await runner.run(load, answering, name=f"{workload.stem}, {minutes:g} minutes")
        found = soaked(result)
        write(found, folder / SOAK)
        # So that a report that is made again says it too.
        result = msgspec.structs.replace(result, notes=(*result.notes, *found.lines()))
        write(result, folder / RESULT)
        report(result, folder, to)
        return stand([result])

    options.ended(work)
