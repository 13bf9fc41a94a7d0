"""`headrace-load soak`: one long run, whether memory grows in it and latency drifts."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from headrace_load.commands import options
from headrace_load.result import write
from headrace_load.runs import RESULT, report, stand
from headrace_load.soak import soaked
from headrace_load.workload.spec import read_workload

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
