"""`headrace-load run`, one run of a workload, and `soak`, a long one: does memory grow, does latency drift?"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Annotated

import msgspec
import typer
from msgspec import Struct
from scipy import stats

from headrace_load.commands import options
from headrace_load.result import CONFIDENCE, Result, Second, write
from headrace_load.runner import RESULT, report, stand
from headrace_load.target import TargetOptions
from headrace_load.workload.spec import read_workload

FORMAT = "headrace-load/soak/1"
TENTHS = 10


class Slope(Struct, frozen=True, kw_only=True):
    """MB an hour by least squares, with its confidence interval by Student's t.

    Neighbouring seconds resemble each other, so the interval is of the means of minutes.
    """

    mb_per_hour: float
    low: float
    high: float


class Soak(Struct, frozen=True, kw_only=True, tag=FORMAT, tag_field="format"):
    """``memory`` of workers, broker and harness, without the first tenth of the run, in which caches fill.

    ``first_p99`` and ``last_p99`` (ms) are medians over the seconds of the first and the last tenth of the run.
    """

    memory: dict[str, Slope]
    first_p99: float | None
    last_p99: float | None

    def lines(self) -> list[str]:
        """The figures in plain lines."""
        lines = [
            f"memory of {who}: {slope.mb_per_hour:+.2f} MB an hour ({slope.low:+.2f} to {slope.high:+.2f})"
            for who, slope in self.memory.items()
        ]
        if self.first_p99 and self.last_p99 is not None:
            change = self.last_p99 / self.first_p99 - 1
            lines.append(
                f"p99 of a second: {self.first_p99:,.1f} ms in the first tenth, {self.last_p99:,.1f} ms in the last "
                f"({change:+.0%})"
            )
        return lines


def soaked(result: Result) -> Soak:
    """Memory and latency over the seconds of ``result``."""
    timeline = result.measured()
    tenth = len(timeline) // TENTHS
    return Soak(
        memory=_memory(timeline[tenth:]),
        first_p99=_p99(timeline[:tenth]),
        last_p99=_p99(timeline[len(timeline) - tenth :]),
    )


def slope(seconds: Sequence[float], megabytes: Sequence[float]) -> Slope | None:
    """The slope through the means of minutes; None for fewer than three minutes."""
    minutes: dict[int, list[tuple[float, float]]] = {}
    for second, value in zip(seconds, megabytes, strict=True):
        minutes.setdefault(int(second // 60), []).append((second, value))
    if len(minutes) < 3:
        return None
    hours = [statistics.fmean(second for second, _ in part) / 3600 for part in minutes.values()]
    values = [statistics.fmean(value for _, value in part) for part in minutes.values()]
    found, begin = statistics.linear_regression(hours, values)
    middle = statistics.fmean(hours)
    beside = sum((value - begin - found * hour) ** 2 for hour, value in zip(hours, values, strict=True))
    error = math.sqrt(beside / (len(hours) - 2) / sum((hour - middle) ** 2 for hour in hours))
    margin = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(hours) - 2)) * error
    return Slope(mb_per_hour=found, low=found - margin, high=found + margin)


def _memory(timeline: Sequence[Second]) -> dict[str, Slope]:
    found = {}
    for who in dict.fromkeys(name for one in timeline for name in one.rss_mb):
        points = [(float(one.second), one.rss_mb[who]) for one in timeline if who in one.rss_mb]
        if (line := slope(*zip(*points, strict=True))) is not None:
            found[who] = line
    return found


def _p99(timeline: Sequence[Second]) -> float | None:
    known = [one.p99 for one in timeline if one.p99 is not None]
    return statistics.median(known) if known else None


@options.takes_target(options.ANY)
def run(
    workload: options.WorkloadFile,
    *,
    contender: options.OneContender = None,
    target: TargetOptions,
    out: options.Out = None,
) -> None:
    """Run a workload once: against a contender on topics of its own, or against workers that run already.

    Ends with 1 when the audit failed or the figures don't stand.
    """
    load, answering = read_workload(workload), options.contender_of(contender, target)
    folder, to = options.folder_for(out, workload.stem), options.console()

    async def work() -> bool:
        async with options.runner(target, folder, to) as runner:
            result = await runner.run(load, answering, name=workload.stem)
        report(result, folder, to)
        return stand([result])

    options.run_to_exit(work())


SOAK = "soak.json"


@options.takes_target(options.ANY)
def soak(
    workload: options.WorkloadFile,
    *,
    minutes: Annotated[float, typer.Option(min=0.05, help="How long, instead of the workload's own seconds.")] = 30.0,
    contender: options.OneContender = None,
    target: TargetOptions,
    out: options.Out = None,
) -> None:
    """Run a workload for long, and say how memory grew and how latency drifted.

    Ends with 1 when the audit failed or the figures don't stand.
    """
    load = msgspec.structs.replace(read_workload(workload), seconds=60 * minutes)
    answering = options.contender_of(contender, target)
    folder, to = options.folder_for(out, f"soak-{workload.stem}"), options.console()

    async def work() -> bool:
        async with options.runner(target, folder, to) as runner:
            result = await runner.run(load, answering, name=f"{workload.stem}, {minutes:g} minutes")
        found = soaked(result)
        write(found, folder / SOAK)
        # Written again, so that a report that is made again has the notes.
        result = msgspec.structs.replace(result, notes=(*result.notes, *found.lines()))
        write(result, folder / RESULT)
        report(result, folder, to)
        return stand([result])

    options.run_to_exit(work())
