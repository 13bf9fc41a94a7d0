"""`headrace-load swap`: an alias moved under a steady load, and the waits beside each swap."""

from __future__ import annotations

import asyncio
import re
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from aiokafka import AIOKafkaProducer
from msgspec import Struct

from headrace.process.children import ProgramError
from headrace_load.commands import options
from headrace_load.contender import Contender, WorkerProgram
from headrace_load.processes import headrace
from headrace_load.result import Result, Second, write
from headrace_load.runner import Runner, report, stand
from headrace_load.target import Running, Start, System, TargetOptions
from headrace_load.workload.spec import Constant, Workload
from headrace_schemas.codec import encode_models_record
from headrace_schemas.records import ModelAlias
from headrace_schemas.topics import models_key

FORMAT = "headrace-load/swaps/1"
MODEL, ALIAS = "default", "champion"  # what a worker follows by its defaults
BESIDE_MS = 1000
QUIET_S = 2.0


class Move(Struct, frozen=True, kw_only=True):
    """The alias was moved to ``version``. ``first_ms`` is the version's first answer after that. Milliseconds since the
    Unix epoch.
    """

    version: str
    moved_ms: int
    first_ms: int | None = None


class Waits(Struct, frozen=True, kw_only=True):
    """Waits in milliseconds over some seconds of a run: medians of the seconds' p50 and p99, and the longest wait."""

    seconds: int
    p50: float | None
    p99: float | None
    worst: float | None

    def line(self) -> str:
        """The figures in words."""
        figures = zip(("p50", "p99", "worst"), (self.p50, self.p99, self.worst), strict=True)
        return f"{', '.join(f'{name} {ms:.1f} ms' for name, ms in figures if ms is not None)} of {self.seconds} s"


class Swaps(Struct, frozen=True, kw_only=True, tag=FORMAT, tag_field="format"):
    """A run with swaps. ``beside`` are the seconds from one before a move to one after the first answer of its
    version.
    """

    keep_previous: bool
    moves: tuple[Move, ...]
    apart: Waits
    beside: Waits

    def lines(self) -> list[str]:
        """The figures in plain lines."""
        took = [f"{one.first_ms - one.moved_ms} ms" if one.first_ms is not None else "never" for one in self.moves]
        return [
            "the previous version was held in memory" if self.keep_previous else "every swap loaded its version",
            f"first answer of the new version after {', '.join(took)}",
            f"waits beside swaps: {self.beside.line()}; apart from them: {self.apart.line()}",
        ]


def follower(*, keep_previous: bool) -> Contender:
    """A worker that follows the moved alias."""
    settings = {"worker.keep_previous": str(keep_previous).lower()}
    name = "previous version in memory" if keep_previous else "every swap loads"
    return Contender(name=name, worker=WorkerProgram(model=ALIAS, settings=settings))


def swapping(
    start: Start,
    system: System,
    models: tuple[Path, Path],
    *,
    delay_s: float,
    every_s: float,
    moves: list[Move],
    swaps: int,
) -> Start:
    """``start`` with both artifacts published before it, and the alias moved ``swaps`` times while it runs.

    The first move comes ``delay_s`` seconds after the start. At the end of the block ``moves`` is filled. Entering may
    raise ProgramError; leaving raises it when the run ended before the last move.
    """

    @asynccontextmanager
    async def started() -> AsyncIterator[Running]:
        # Publish the other one first, so that the alias points at the first at the beginning.
        second, first = [await _published(system, model) for model in reversed(models)]
        async with start() as running:
            mover = asyncio.create_task(_move(system, (first, second), delay_s, every_s, swaps))
            try:
                yield running
                if not mover.done():
                    raise ProgramError("the run ended before the last swap: it has to be longer")
                moves.extend(await _answered(system, mover.result()))
            finally:
                mover.cancel()

    return started


async def _published(system: System, model: Path) -> str:
    """Publish an artifact, point the alias at it, and return its version."""
    said = await headrace("models", "publish", str(model), "--alias", ALIAS, environment=system.environment())
    found = re.search(r"-> (\S+)", said)
    if found is None:
        raise ProgramError(f"`headrace models publish` named no version: {said}")
    return found[1]


async def _move(system: System, versions: tuple[str, str], delay_s: float, every_s: float, swaps: int) -> list[Move]:
    """Move the alias by writing the record: starting the command would load the cores for a second."""
    moves: list[Move] = []
    async with AIOKafkaProducer(**system.client_options()) as producer:
        await asyncio.sleep(delay_s)
        for number in range(1, swaps + 1):
            now_ms = time.time_ns() // 1_000_000
            record = ModelAlias(
                name=MODEL,
                alias=ALIAS,
                version=versions[number % 2],
                previous=versions[(number + 1) % 2],
                moved_at_ms=now_ms,
                reason="headrace-load swap",
            )
            await producer.send_and_wait(system.models, encode_models_record(record), key=models_key(record))
            moves.append(Move(version=record.version, moved_ms=now_ms))
            await asyncio.sleep(every_s)
    return moves


async def _answered(system: System, moves: Sequence[Move]) -> list[Move]:
    """``moves``, each with the time of its version's first answer after it."""
    times: dict[str, list[int]] = {}
    async with system.client() as client, client.reader("earliest") as reader:
        while answers := await reader.read(timeout_s=QUIET_S):
            for answer in answers:
                times.setdefault(answer.result.version or "", []).append(answer.timestamp_ms)
    return [
        Move(
            version=move.version,
            moved_ms=move.moved_ms,
            first_ms=min((at for at in times.get(move.version, ()) if at >= move.moved_ms), default=None),
        )
        for move in moves
    ]


def swapped(result: Result, moves: Sequence[Move], *, keep_previous: bool) -> Swaps:
    """The waits of ``result`` near ``moves`` and away from them, by the second in which requests were due."""
    begun_ms = datetime.fromisoformat(result.begun_at).timestamp() * 1000
    apart: list[Second] = []
    beside: list[Second] = []
    for one in result.measured():
        second_ms = begun_ms + 1000 * one.second
        near = any(
            second_ms + 1000 >= move.moved_ms - BESIDE_MS
            and second_ms <= (move.moved_ms if move.first_ms is None else move.first_ms) + BESIDE_MS
            for move in moves
        )
        (beside if near else apart).append(one)
    return Swaps(keep_previous=keep_previous, moves=tuple(moves), apart=_waits(apart), beside=_waits(beside))


def _waits(seconds: Sequence[Second]) -> Waits:
    def known(figure: str) -> list[float]:
        return [value for one in seconds if (value := getattr(one, figure)) is not None]

    p50, p99, worst = known("p50"), known("p99"), known("max")
    return Waits(
        seconds=len(seconds),
        p50=statistics.median(p50) if p50 else None,
        p99=statistics.median(p99) if p99 else None,
        worst=max(worst, default=None),
    )


SWAPS = "swaps.json"
BEFORE_S = 2.0
"""Between the start of the worker and the first swap, beside the warm-up and a whole distance."""


@options.takes_target(options.OWN_TOPICS)
def swap(
    first: Annotated[Path, typer.Argument(metavar="A", **options.FILE, help="An artifact.")],
    second: Annotated[Path, typer.Argument(metavar="B", **options.FILE, help="Another of the same labels.")],
    *,
    texts: options.TextsFile = None,
    rate: Annotated[float, typer.Option(min=1, help="Requests a second.")] = 500.0,
    swaps: Annotated[int, typer.Option(min=1, help="How often the alias is moved.")] = 6,
    every: Annotated[float, typer.Option(min=0.5, help="Seconds between two moves.")] = 5.0,
    target: TargetOptions,
    out: options.Out = None,
) -> None:
    """Move an alias between two artifacts under a steady load, and look at the waits beside each swap.

    It runs twice: with a worker that loads a version at every swap, and with one that keeps the previous version in
    memory. Ends with 1 when an audit failed or the figures don't stand.
    """
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
        async with options.runner(target, folder, to) as runner:
            return stand([await one(runner, number, keep_previous=number == 2) for number in (1, 2)])

    options.run_to_exit(work())
