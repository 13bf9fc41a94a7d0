"""`headrace-load drain` and `headrace-load compare`: contenders in turn, and how sure their differences are."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated

import typer

from headrace_load.commands import options
from headrace_load.comparison import COMPARISON, Around, alternating, differences, report, stand
from headrace_load.contender import Contender
from headrace_load.killing import check_killable, killed
from headrace_load.place import Asked
from headrace_load.result import Comparison, Result, write
from headrace_load.workload.spec import Backlog, Workload, read_workload

Rounds = Annotated[int, typer.Option(min=1, help="Rounds that count; one more warms up. An interval needs two.")]


def drain(
    *,
    contenders: Annotated[
        list[Path],
        typer.Option(
            "--contender", metavar="FILE", exists=True, dir_okay=False, help="What answers; the first is compared with."
        ),
    ],
    requests: Annotated[int, typer.Option(min=1, help="Requests of a backlog.")] = 100_000,
    texts: options.TextsFile = None,
    rounds: Rounds = 3,
    producers: Annotated[int, typer.Option(min=1, max=64, help="Processes that publish the backlog.")] = 1,
    kill: Annotated[
        bool, typer.Option("--kill", help="End the members by SIGKILL when a third is answered; their parent goes on.")
    ] = False,
    bootstrap: options.Bootstrap = None,
    broker: options.Broker = None,
    prefix: options.Prefix = None,
    sets: options.Sets = None,
    partitions: options.Partitions = 4,
    out: options.Out = None,
) -> None:
    """Publish a backlog and measure how fast it is drained, each contender in turn.

    The rate is between the append of the first answer and of the last, so no start is in it. A first round warms the
    broker and does not count. Ends with 1 when an audit failed.
    """
    asked = options.asked(bootstrap, prefix, sets, broker=broker, partitions=partitions)
    workload = Workload(
        arrivals=Backlog(requests=requests),
        texts=options.texts_of(texts),
        producers=producers,
        read="after",
    )
    answering = options.several(contenders)
    if kill:
        check_killable(answering)
    around = functools.partial(killed, after=requests // 3) if kill else None
    _in_turn(workload, answering, rounds, asked, out, "drain", around)


def compare(
    contenders: Annotated[
        list[Path],
        typer.Argument(metavar="CONTENDER...", exists=True, dir_okay=False, help="The first is compared with."),
    ],
    *,
    workload: Annotated[
        Path, typer.Option(metavar="FILE", exists=True, dir_okay=False, help="A workload's TOML file.")
    ],
    rounds: Rounds = 5,
    bootstrap: options.Bootstrap = None,
    broker: options.Broker = None,
    prefix: options.Prefix = None,
    sets: options.Sets = None,
    partitions: options.Partitions = 4,
    out: options.Out = None,
) -> None:
    """Run a workload against several contenders in turn, and state their differences with confidence intervals.

    A first round warms the broker and does not count. Ends with 1 when an audit failed or a verdict was refused.
    """
    asked = options.asked(bootstrap, prefix, sets, broker=broker, partitions=partitions)
    if len(contenders) < 2:
        raise typer.BadParameter("a comparison needs two contenders or more", param_hint="CONTENDER")
    _in_turn(read_workload(workload), options.several(contenders), rounds, asked, out, f"compare-{workload.stem}")


def _in_turn(
    workload: Workload,
    contenders: dict[str, Contender],
    rounds: int,
    asked: Asked,
    out: Path | None,
    name: str,
    around: Around | None = None,
) -> None:
    folder, to = options.folder_for(out, name), options.console()

    async def work() -> bool:
        runs: list[Result] = []
        async with options.runner(asked, folder, to) as runner:

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
        # The warm-up's figures don't count, but an answer that was lost there is lost.
        return stand(one for several in results.values() for one in several) and all(one.audit.kept for one in runs)

    options.ended(work)
