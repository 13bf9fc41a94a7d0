"""`headrace-load drain` and `headrace-load compare`: contenders run in turn, with intervals of their differences.

A drain can kill members of the workers on the way, as an out-of-memory killer would. Its audit shows lost requests.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Annotated

import msgspec
import psutil
import typer

from headrace.process.children import ProgramError
from headrace_load.commands import options
from headrace_load.contender import Contender, ContenderError
from headrace_load.measure.processes import tail
from headrace_load.result import Comparison, Result, alternating, differences, write
from headrace_load.runner import COMPARISON, Around, report, stand
from headrace_load.target import Running, Start, System, TargetOptions
from headrace_load.workload.spec import Backlog, Workload, read_workload

POLL_S = 0.05


def check_killable(contenders: Mapping[str, Contender]) -> None:
    """Raises ContenderError for a contender whose killed processes nobody would restart."""
    for name, contender in contenders.items():
        if contender.worker is None or contender.worker.processes < 2:
            raise ContenderError(
                f"{name}: killed members are started again by the parent of several; "
                "give it a table [worker] with processes = 2 or more"
            )


def killed(start: Start, system: System, *, after: int) -> Start:
    """``start``, with SIGKILL for each member after ``after`` answers. Their parent starts them again.

    Restarted members have other addresses, so no metrics are read. Leaving raises ProgramError when the run ended
    before so many answers.
    """

    @asynccontextmanager
    async def started() -> AsyncIterator[Running]:
        async with start() as running:
            killer = asyncio.create_task(_kill(system, running.pids, after))
            try:
                yield msgspec.structs.replace(running, metrics=())
                if not killer.done():
                    raise ProgramError(f"nobody was killed: there were never {after:,} answers")
                killer.result()
            finally:
                killer.cancel()

    return started


async def _kill(system: System, parents: Sequence[int], after: int) -> None:
    async with tail(system) as end:
        # The topics belong to this run and the workers start now, so they hold only its answers.
        while sum((await end.ends()).values()) < after:  # noqa: ASYNC110 - another process makes it true
            await asyncio.sleep(POLL_S)
    for parent in parents:
        for member in psutil.Process(parent).children():
            with suppress(psutil.NoSuchProcess):
                member.kill()


Rounds = Annotated[int, typer.Option(min=1, help="Rounds that count, after one that warms up. An interval needs two.")]


@options.takes_target(options.OWN_TOPICS)
def drain(
    *,
    contenders: Annotated[
        list[Path],
        typer.Option(
            "--contender", metavar="FILE", **options.FILE, help="What answers. The others are compared with the first."
        ),
    ],
    requests: Annotated[int, typer.Option(min=1, help="Requests of a backlog.")] = 100_000,
    texts: options.TextsFile = None,
    rounds: Rounds = 3,
    producers: Annotated[int, typer.Option(min=1, max=64, help="Processes that publish the backlog.")] = 1,
    kill: Annotated[
        bool, typer.Option("--kill", help="Kill the members (SIGKILL) after a third of the answers.")
    ] = False,
    target: TargetOptions,
    out: options.Out = None,
) -> None:
    """Publish a backlog and measure how fast it is drained, each contender in turn.

    The rate counts from the append of the first answer to that of the last, without the start. A first round warms the
    broker up and does not count. Ends with 1 when an audit failed.
    """
    workload = Workload(
        arrivals=Backlog(requests=requests),
        texts=options.texts_of(texts),
        producers=producers,
        read="after",
    )
    answering = options.contenders_of(contenders)
    if kill:
        check_killable(answering)
    around = functools.partial(killed, after=requests // 3) if kill else None
    _in_turn(workload, answering, rounds, target, out, "drain", around)


@options.takes_target(options.OWN_TOPICS)
def compare(
    contenders: Annotated[
        list[Path],
        typer.Argument(metavar="CONTENDER...", **options.FILE, help="The others are compared with the first."),
    ],
    *,
    workload: Annotated[Path, typer.Option(metavar="FILE", **options.FILE, help="A workload's TOML file.")],
    rounds: Rounds = 5,
    target: TargetOptions,
    out: options.Out = None,
) -> None:
    """Run a workload against several contenders in turn, and state their differences with confidence intervals.

    A first round warms the broker up and does not count. Ends with 1 when an audit failed or a verdict was refused.
    """
    if len(contenders) < 2:
        raise typer.BadParameter("a comparison needs two contenders or more", param_hint="CONTENDER")
    _in_turn(
        read_workload(workload), options.contenders_of(contenders), rounds, target, out, f"compare-{workload.stem}"
    )


def _in_turn(
    workload: Workload,
    contenders: dict[str, Contender],
    rounds: int,
    target: TargetOptions,
    out: Path | None,
    name: str,
    around: Around | None = None,
) -> None:
    folder, to = options.folder_for(out, name), options.console()

    async def work() -> bool:
        runs: list[Result] = []
        async with options.runner(target, folder, to) as runner:

            async def one(number: int, contender: str) -> Result:
                what = f"{contender}, {f'round {number}' if number else 'warm-up'}"
                result = await runner.run(
                    workload, contenders[contender], name=what, number=len(runs) + 1, around=around
                )
                runs.append(result)
                to.print(f"{what}: {result.rate:,.0f} answers/s; {result.audit.line()}", markup=False, soft_wrap=True)
                return result

            results = await alternating(tuple(contenders), rounds, one)
        comparison = Comparison(results=results, differences=differences(results))
        write(comparison, folder / COMPARISON)
        report(comparison, folder, to)
        # The warm-up's figures don't count, but an answer that it lost does.
        return stand(one for several in results.values() for one in several) and all(one.audit.kept for one in runs)

    options.run_to_exit(work())
