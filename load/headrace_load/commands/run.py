"""`headrace-load run`: one run of a workload."""

from __future__ import annotations

from headrace_load.commands import options
from headrace_load.comparison import report, stand
from headrace_load.workload.spec import read_workload


def run(
    workload: options.WorkloadFile,
    *,
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
    """Run a workload once: against a contender on topics of its own, or against workers that run already.

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
    load, answering = read_workload(workload), options.contender_of(contender, asked)
    folder, to = options.folder_for(out, workload.stem), options.console()

    async def work() -> bool:
        async with options.runner(asked, folder, to) as runner:
            result = await runner.run(load, answering, name=workload.stem)
        report(result, folder, to)
        return stand([result])

    options.ended(work)
