"""How one worker's drain grows with partitions, text length, classes, kept words, batch bound and format.

    python -m load.growth --out FOLDER [--axis NAME ...]

Networks and texts are made, so it needs no data: 128 dimensions, 96 filters of each of the widths 2, 3 and 4, words by
Zipf's law. One point of an axis differs from the others in that alone. It starts a real Apache Kafka (Java 17).

A broker's first append to a partition makes its files, which takes it tens of milliseconds, and the first batch behind
4,096 bytes its index. So a few requests for each partition are answered first, twice, as runs of their own, and the
measured backlog is published after them to the same topics. A broker compiles what it does often while it does it, so
the open loops over idle partitions warm up for long.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import statistics
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct
from rich.console import Console

from headrace_load.contender import Contender, WorkerProgram
from headrace_load.report.tables import running_cpu
from headrace_load.result import Result
from headrace_load.runner import Runner
from headrace_load.target import Target, TargetOptions, open_target
from headrace_load.workload.spec import Backlog, MadeTexts, Poisson, UniqueKeys, Workload, ZipfKeys
from headrace_load.workload.texts import load_texts
from load.made import made_artifact

REQUESTS = 150_000
COLD_REQUESTS = 100
"""For each partition in each of two runs before the measured one: their answers are longer than 4,096 bytes."""
IDLE_RATE = 1_500.0
IDLE = (4, 100, 1000)
"""Partitions of which four are in use."""


class Point(Struct, frozen=True, kw_only=True):
    """One measured setting; the defaults are what all axes have in common."""

    partitions: int = 4
    text_bytes: int = 200
    classes: int = 4
    words: int = 30_000
    max_batch: int = 1024
    content_type: str = "application/json"
    requests: int = REQUESTS


AXES: dict[str, tuple[Point, ...]] = {
    "partitions": tuple(Point(partitions=number, requests=2 * REQUESTS) for number in (1, 4, 16, 64, 256)),
    "text_bytes": tuple(
        Point(text_bytes=size, requests=max(20_000, min(200_000, 30_000_000 // size)))
        for size in (20, 64, 200, 1024, 8192)
    ),
    "classes": tuple(Point(classes=number) for number in (2, 10, 100, 1000)),
    "words": tuple(Point(words=number) for number in (3_000, 30_000, 300_000)),
    "max_batch": tuple(Point(max_batch=number) for number in (64, 256, 1024, 4096)),
    "content_type": tuple(
        Point(content_type=name) for name in ("application/json", "application/msgpack", "text/plain")
    ),
}

COLUMNS = (
    "texts/s",
    "CPU s per 100,000, worker",
    "broker",
    "first records, s",
    "taken over, s",
    "first answer, s",
)

IDLE_COLUMNS = ("partitions, four of them in use", "p50 ms", "p99 ms", "worker's CPU s a second", "broker's")

T = TypeVar("T")


class Line(Struct, frozen=True):
    """What is looked at in a line of a worker's log."""

    event: str
    time: datetime
    position: int = 0


class Drained(Struct, frozen=True, kw_only=True):
    """The drain of a point's backlog, and an earlier one: the first records of every partition.

    ``taken_s`` is from the group's assignment to when the last of its partitions had resumed.
    """

    cold: Result
    warm: Result
    taken_s: float


async def drained(runner: Callable[[int], Runner], point: Point, model: Path, numbers: itertools.count[int]) -> Drained:
    """Drains by one process, of a few requests and then of the point's backlog."""
    worker = WorkerProgram(model=str(model), settings={"worker.max_batch": str(point.max_batch)})
    workload = Workload(
        arrivals=Backlog(requests=point.requests),
        texts=MadeTexts(words=point.words, bytes=point.text_bytes),
        content_type=point.content_type,  # type: ignore[arg-type]
        read="after",
    )
    contender = Contender(name="headrace", worker=worker)
    at, number = runner(point.partitions), next(numbers)
    first = msgspec.structs.replace(
        workload,
        arrivals=Backlog(requests=COLD_REQUESTS * point.partitions),
        # Requests without keys go to a partition in hundreds, so these few would go to some partitions alone.
        keys=UniqueKeys(),
    )
    # The same number stands for the same topics, and those of a transient target stay.
    kept = msgspec.structs.replace(
        at, target=msgspec.structs.replace(at.target, transient=True), folder=at.folder / "cold"
    )
    cold = await kept.run(first, contender, name="cold", number=number)
    await kept.run(first, contender, name="cold", number=number)
    warm = await at.run(workload, contender, name="growth", number=number)
    taken_s, lowest = resumed(at.folder / f"{number:02}" / "contender-1.log")
    if not lowest:
        raise SystemExit("A partition had no request before the measured drain, so the drain was not warm.")
    return Drained(cold=cold, warm=warm, taken_s=taken_s)


def resumed(log: Path) -> tuple[float, int]:
    """Seconds from the first assignment in a worker's log to the last partition that resumed, and the lowest position
    at which one did.
    """
    at: dict[str, list[Line]] = {"partitions.assigned": [], "partition.resumed": []}
    for line in log.read_bytes().splitlines():
        with suppress(msgspec.MsgspecError):
            event = msgspec.json.decode(line, type=Line)
            if event.event in at:
                at[event.event].append(event)
    begun = min(line.time for line in at["partitions.assigned"])
    ended = max(line.time for line in at["partition.resumed"])
    return (ended - begun).total_seconds(), min(line.position for line in at["partition.resumed"])


def figures(of_it: Sequence[Drained]) -> str:
    """The medians of a point's rounds, as the columns of :data:`COLUMNS` show them."""
    return " | ".join(
        (
            f"{median(of_it, lambda one: one.warm.rate):,.0f}",
            f"{median(of_it, lambda one: running_cpu(one.warm) or 0.0):.2f}",
            f"{median(of_it, lambda one: one.warm.used['broker'].cpu_s_per_100k):.2f}",
            f"{median(of_it, lambda one: one.cold.seconds):.2f}",
            f"{median(of_it, lambda one: one.taken_s):.2f}",
            f"{median(of_it, lambda one: one.warm.first_answer_s or 0.0):.2f}",
        )
    )


def median(of_it: Sequence[T], figure: Callable[[T], float]) -> float:
    """The median of a ``figure`` of some rounds."""
    return statistics.median(map(figure, of_it))


async def idle(runner: Callable[[int], Runner], model: Path, partitions: int, numbers: itertools.count[int]) -> Result:
    """An open loop over four keys, so over four partitions at most, of a topic with ``partitions``."""
    workload = Workload(
        arrivals=Poisson(rate=IDLE_RATE),
        texts=MadeTexts(),
        keys=ZipfKeys(keys=4, exponent=0.0),
        seconds=10,
        warm_up=25,
        read="after",
    )
    contender = Contender(name="headrace", worker=WorkerProgram(model=str(model)))
    return await runner(partitions).run(workload, contender, name="idle", number=next(numbers))


def idle_figures(of_it: Sequence[Result]) -> str:
    """The medians of the rounds with so many partitions, as the columns of :data:`IDLE_COLUMNS` show them."""
    waits = [one.to_append for one in of_it if one.to_append is not None]
    return " | ".join(
        (
            f"{median(waits, lambda wait: wait.p50):.1f}",
            f"{median(waits, lambda wait: wait.p99):.1f}",
            f"{median(of_it, lambda one: one.used['workers'].cpu_s / one.seconds):.2f}",
            f"{median(of_it, lambda one: one.used['broker'].cpu_s / one.seconds):.2f}",
        )
    )


async def idle_rounds(
    count: int, runner: Callable[[int], Runner], model: Path, numbers: itertools.count[int]
) -> dict[int, list[Result]]:
    """Open loops by partitions, in turn. One before does not count: the broker's first open loop is a slow one."""
    await idle(runner, model, IDLE[0], numbers)
    found: dict[int, list[Result]] = {partitions: [] for partitions in IDLE}
    for _ in range(count):
        for partitions, of_it in found.items():
            of_it.append(await idle(runner, model, partitions, numbers))
    return found


async def rounds(
    axis: str,
    count: int,
    runner: Callable[[int], Runner],
    model: Callable[[Point], Path],
    numbers: itertools.count[int],
) -> dict[Point, list[Drained]]:
    """The drains of an axis by its points, which take turns, so that a drift of the machine affects all of them."""
    found: dict[Point, list[Drained]] = {point: [] for point in AXES[axis]}
    for _ in range(count):
        for point, of_it in found.items():
            of_it.append(await drained(runner, point, model(point), numbers))
    return found


async def main(options: argparse.Namespace, console: Console) -> None:
    """Measure the axes and print a table of each."""
    out: Path = options.out
    numbers = itertools.count(1)
    lines: list[str] = []

    def say(line: str) -> None:
        console.print(line, soft_wrap=True, markup=False, highlight=False)
        lines.append(line)

    async with open_target(TargetOptions(broker="apache"), os.environ, out) as found:

        def runner(partitions: int) -> Runner:
            at: Target = msgspec.structs.replace(found, transient=False, partitions=partitions)
            return Runner(target=at, folder=out / "runs", console=Console(quiet=True))

        models: dict[tuple[int, int, int], Path] = {}

        def model(point: Point) -> Path:
            key = (point.classes, point.words, point.text_bytes)
            if key not in models:
                models[key] = out / f"{'-'.join(map(str, key))}.safetensors"
                texts = load_texts(MadeTexts(words=point.words, bytes=point.text_bytes), 0)
                made_artifact(texts, models[key], words=point.words, classes=point.classes)
            return models[key]

        for _ in range(2):
            await drained(runner, Point(), model(Point()), numbers)
        for axis in options.axis:
            say(f"\n| {axis} | {' | '.join(COLUMNS)} |\n|{'---|' * (1 + len(COLUMNS))}")
            for point, of_it in (await rounds(axis, options.rounds, runner, model, numbers)).items():
                say(f"| {getattr(point, axis)} | {figures(of_it)} |")
        if options.idle:
            say(f"\n| {' | '.join(IDLE_COLUMNS)} |\n|{'---|' * len(IDLE_COLUMNS)}")
            for partitions, idle_of_it in (await idle_rounds(options.rounds, runner, model(Point()), numbers)).items():
                say(f"| {partitions} | {idle_figures(idle_of_it)} |")
    (out / "tables.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m load.growth", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--axis", nargs="*", choices=tuple(AXES), default=tuple(AXES))
    parser.add_argument("--rounds", type=int, default=2, help="runs of a point; the median counts")
    parser.add_argument("--idle", action="store_true", help="measure mostly idle partitions too")
    return parser.parse_args()


if __name__ == "__main__":
    asked = parse()
    asked.out.mkdir(parents=True, exist_ok=True)
    asyncio.run(main(asked, Console()))
