"""The pictures of a comparison. A function gives None where no run has anything to show."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from headrace_load.report import drawing
from headrace_load.report.drawing import BLUE, INK, curve, draw_stages, drawn
from headrace_load.report.figures import middle, rate_difference, worker_cpu
from headrace_load.report.words import number, short, stands
from headrace_load.result import Comparison, Result, Stage


def rates(comparison: Comparison) -> Figure | None:
    """The median rate of each contender, its single runs, and the interval of its ratio to the first."""
    figure = _compared(comparison, lambda result: result.rate, "Answers a second", "answers a second")
    if figure is None:
        return None
    axes = figure.axes[0]
    first = next(iter(comparison.results))
    base = middle(comparison.results[first], lambda result: result.rate)
    for row, name in enumerate(comparison.results):
        difference = rate_difference(comparison, name)
        if difference is None or base is None:
            continue
        axes.errorbar(
            base * difference.ratio,
            row,
            xerr=[[base * (difference.ratio - difference.low)], [base * (difference.high - difference.ratio)]],
            color=INK,
            capsize=4,
            linewidth=1.2,
        )
    return figure


def worker_cpus(comparison: Comparison) -> Figure | None:
    """CPU seconds of the workers a 100,000 answers."""
    return _compared(comparison, worker_cpu, "CPU of the workers a 100,000 answers", "s")


def latency_percentiles(comparison: Comparison) -> Figure | None:
    """Latency to the append against the share of requests, a line a contender, all its runs together."""
    found = {
        name: curve([result.to_append for result in results if stands(result) and result.to_append is not None])
        for name, results in comparison.results.items()
    }
    lines = {name: line for name, line in found.items() if line is not None}
    if not lines:
        return None
    with drawn(3.4 + 0.22 * (len(lines) // 2)) as figure:
        axes = figure.subplots()
        # A contender has its colour by its place, whether or not the ones before it have a line.
        places = {name: place for place, name in enumerate(comparison.results)}
        drawn_lines = [
            axes.plot(line.one_in, line.milliseconds, **drawing.series(places[name]))[0] for name, line in lines.items()
        ]
        everything = np.concatenate([line.milliseconds for line in lines.values()])
        drawing.scaled(axes, "y", logarithmic=drawing.wide(everything))
        drawing.nines(axes, max(line.one_in[-1] for line in lines.values()))
        axes.set(title="Latency to the append, from when a request was due to be sent", ylabel="ms")
        figure.legend(drawn_lines, [short(name) for name in lines], loc="outside lower center", ncols=2)
    return figure


def stages(comparison: Comparison) -> Figure | None:
    """Where the mean request's time went, a bar a contender."""
    bars = {name: _middle_stages(results) for name, results in comparison.results.items()}
    return draw_stages(bars, "Where the mean request's time went, medians of the runs")


ALL: dict[str, tuple[str, Callable[[Comparison], Figure | None]]] = {
    "rates": (
        "Answers a second: the median, a ring a run, and a whisker for the interval of the ratio to the first.",
        rates,
    ),
    "cpu": ("CPU seconds of the workers a 100,000 answers: the median, and each run as a ring.", worker_cpus),
    "latency": ("Latency at each share of the requests; all runs of a contender together.", latency_percentiles),
    "stages": ("The mean time in each stage, from left to right.", stages),
}


def _compared(comparison: Comparison, figure: Callable[[Result], float | None], title: str, unit: str) -> Figure | None:
    """A row a contender: the median of ``figure`` with its value, and a ring a run.

    Bars where the axis begins at 0; on a logarithmic one, which has no 0 for a bar to stand on, points.
    """
    runs = {
        name: [value for result in results if stands(result) and (value := figure(result)) is not None]
        for name, results in comparison.results.items()
    }
    everything = [value for values in runs.values() for value in values]
    if not everything:
        return None
    logarithmic = drawing.wide(everything)
    with drawn(1.1 + 0.42 * len(runs)) as made:
        axes = made.subplots()
        for row, values in enumerate(runs.values()):
            if values:
                _row(axes, row, values, logarithmic=logarithmic)
        axes.set_yticks(range(len(runs)), [short(name) for name in runs])
        axes.set_ylim(len(runs) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        drawing.scaled(axes, "x", logarithmic=logarithmic)
        low, high = min(everything), max(everything)
        axes.set_xlim((low / 1.6, high * 1.3) if logarithmic else (0, 1.1 * high))
        beside = axes.secondary_yaxis("right")
        middles = [number(median(values)) if values else "no run stands" for values in runs.values()]
        beside.set_yticks(range(len(runs)), middles)
        beside.tick_params(length=0)
        beside.spines["right"].set_visible(False)
        axes.set(title=title, xlabel=f"{unit}, logarithmic" if logarithmic else unit)
    return made


def _row(axes: Axes, row: int, values: list[float], *, logarithmic: bool) -> None:
    if logarithmic:
        axes.plot(median(values), row, "o", color=BLUE, markersize=10, alpha=0.5)
    else:
        axes.barh(row, median(values), color=BLUE, height=0.6, alpha=0.75)
    axes.plot(values, [row] * len(values), "o", color=INK, markerfacecolor="none", markersize=4, linestyle="none")


def _middle_stages(results: tuple[Result, ...]) -> list[Stage]:
    means: dict[str, list[float]] = {}
    for result in results:
        for stage in result.stages if stands(result) else ():
            means.setdefault(stage.name, []).append(stage.mean)
    middles = {name: median(values) for name, values in means.items()}
    whole = sum(middles.values())
    return [Stage(name=name, mean=mean, share=mean / whole if whole else 0.0) for name, mean in middles.items()]
