"""How one worker's drain grows with partitions, text length, classes, kept words, batch bound and format.

    python -m load.growth --out FOLDER [--axis NAME ...]

Networks and texts are made, so it needs no data: 128 dimensions, 96 filters of each of the widths 2, 3 and 4, words by
Zipf's law. One point of an axis differs from the others in that alone. It starts a real Apache Kafka (Java 17).
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import statistics
from collections.abc import Callable
from pathlib import Path

import msgspec
from msgspec import Struct
from rich.console import Console

from headrace_load.contender import Contender, WorkerProgram
from headrace_load.report.tables import running_cpu
from headrace_load.result import Result
from headrace_load.runner import Runner
from headrace_load.target import Target, TargetOptions, open_target
from headrace_load.workload.spec import Backlog, MadeTexts, Poisson, Workload, ZipfKeys
from headrace_load.workload.texts import load_texts
from load.made import made_artifact

REQUESTS = 150_000
IDLE_RATE = 1_500.0


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
    "partitions": tuple(Point(partitions=number) for number in (1, 4, 16, 64, 256)),
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


async def drained(runner: Callable[[int], Runner], point: Point, model: Path, numbers: itertools.count[int]) -> Result:
    """One drain of the point's backlog by one process."""
    worker = WorkerProgram(model=str(model), settings={"worker.max_batch": str(point.max_batch)})
    workload = Workload(
        arrivals=Backlog(requests=point.requests),
        texts=MadeTexts(words=point.words, bytes=point.text_bytes),
        content_type=point.content_type,  # type: ignore[arg-type]
        read="after",
    )
    contender = Contender(name="headrace", worker=worker)
    return await runner(point.partitions).run(workload, contender, name="growth", number=next(numbers))


async def idle(runner: Callable[[int], Runner], model: Path, partitions: int, numbers: itertools.count[int]) -> Result:
    """An open loop over four keys, so over four partitions at most, of a topic with ``partitions``."""
    workload = Workload(
        arrivals=Poisson(rate=IDLE_RATE),
        texts=MadeTexts(),
        keys=ZipfKeys(keys=4, exponent=0.0),
        seconds=10,
        warm_up=5,
        read="after",
    )
    contender = Contender(name="headrace", worker=WorkerProgram(model=str(model)))
    return await runner(partitions).run(workload, contender, name="idle", number=next(numbers))


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
            say(f"\n| {axis} | texts/s | CPU s per 100,000, worker | broker |\n|---|---|---|---|")
            for point in AXES[axis]:
                results = [await drained(runner, point, model(point), numbers) for _ in range(options.rounds)]
                rate = statistics.median(result.rate for result in results)
                worker = statistics.median(running_cpu(result) or 0.0 for result in results)
                broker = statistics.median(result.used["broker"].cpu_s_per_100k for result in results)
                say(f"| {getattr(point, axis)} | {rate:,.0f} | {worker:.2f} | {broker:.2f} |")
        if options.idle:
            say("\n| partitions, four of them in use | p50 ms | p99 ms | worker's CPU s a second | broker's |")
            say("|---|---|---|---|---|")
            for partitions in (4, 100, 1000):
                result = await idle(runner, model(Point()), partitions, numbers)
                latency = result.to_append
                shown = f"{latency.p50:.1f} | {latency.p99:.1f}" if latency else "– | –"
                cpu = (result.used[who].cpu_s / result.seconds for who in ("workers", "broker"))
                say(f"| {partitions} | {shown} | {' | '.join(f'{each:.2f}' for each in cpu)} |")
    (out / "tables.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m load.growth", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--axis", nargs="*", choices=tuple(AXES), default=tuple(AXES))
    parser.add_argument("--rounds", type=int, default=2, help="drains a point; the median counts")
    parser.add_argument("--idle", action="store_true", help="measure mostly idle partitions too")
    return parser.parse_args()


if __name__ == "__main__":
    asked = parse()
    asked.out.mkdir(parents=True, exist_ok=True)
    asyncio.run(main(asked, Console()))
