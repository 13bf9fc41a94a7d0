"""The pictures of a run and of a comparison: SVG for the page, and PNG files. A picture without data is left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from msgspec import Struct
from numpy.typing import NDArray

from headrace_load.report import drawing
from headrace_load.report.drawing import BLUE, GREEN, GREY, INK, ORANGE, VERMILION, curve, draw_stages, drawn, png
from headrace_load.report.tables import middle, milliseconds, number, rate_difference, short, stands, worker_cpu
from headrace_load.result import Comparison, Result, Second, Stage


def latency_percentiles(result: Result) -> Figure | None:
    """Latency against the share of requests, on a scale of nines."""
    found = {
        "to the append of the answer": (result.to_append, BLUE),
        "to the reader": (result.to_reader, ORANGE),
    }
    curves = [
        (name, line, colour)
        for name, (latency, colour) in found.items()
        if latency is not None and (line := curve([latency])) is not None
    ]
    if not curves:
        return None
    with drawn(3.6) as figure:
        axes = figure.subplots()
        for name, line, colour in curves:
            axes.plot(line.one_in, line.milliseconds, color=colour, label=name)
        marked = next(latency for latency, _ in found.values() if latency is not None and latency.count)
        for one_in, text, value in ((2, "p50", marked.p50), (100, "p99", marked.p99), (1000, "p99.9", marked.p999)):
            if one_in <= marked.count:
                axes.plot(one_in, value, "o", color=curves[0][2], markersize=4)
                label = f"{text} {milliseconds(value)}"
                axes.annotate(label, (one_in, value), (5, -11), textcoords="offset points", fontsize=8.5)
        drawing.scaled(
            axes, "y", logarithmic=drawing.wide(np.concatenate([line.milliseconds for _, line, _ in curves]))
        )
        drawing.nines(axes, max(line.one_in[-1] for _, line, _ in curves))
        axes.set(title="Latency, from when a request was due to be sent", ylabel="ms")
        axes.legend(loc="upper left")
    return figure


def latency_over_time(result: Result) -> Figure | None:
    """p50, p99 and the slowest of each second."""
    seconds = result.shown()
    lines = {"max": (lambda s: s.max, GREY), "p99": (lambda s: s.p99, VERMILION), "p50": (lambda s: s.p50, BLUE)}
    values = {name: _column(seconds, read) for name, (read, _) in lines.items()}
    if not any(np.isfinite(column).any() for column in values.values()):
        return None
    with drawn(3.0) as figure:
        axes = figure.subplots()
        for name, (_, colour) in lines.items():
            # A lone second between empty ones has no line to either side, so it gets a dot.
            axes.plot(_times(seconds), values[name], color=colour, label=name, marker=".", markersize=3, linewidth=1.2)
        found = np.concatenate(list(values.values()))
        drawing.scaled(axes, "y", logarithmic=drawing.wide(found[np.isfinite(found)]))
        axes.set(title="Latency to the append, by the second a request was due in", ylabel="ms", xlabel="s")
        _beside(axes)
        _from_to(axes, seconds)
    return figure


def rates_over_time(result: Result) -> Figure | None:
    """What was due, sent and answered each second, and below it the lag."""
    seconds = result.shown()
    if not seconds:
        return None
    with drawn(4.6) as figure:
        rates, lag = figure.subplots(2, sharex=True, height_ratios=(3, 2))
        for name, column, style in (
            ("due", [s.due for s in seconds], {"color": GREY, "linewidth": 4, "alpha": 0.55}),
            ("sent", [s.sent for s in seconds], {"color": ORANGE}),
            ("answered", [s.answered for s in seconds], {"color": BLUE, "linestyle": (0, (5, 1.5))}),
        ):
            if any(column):  # of a backlog nothing was due or sent in the measured part
                rates.plot(_times(seconds), column, label=name, **style)
        drawing.scaled(rates, "y", logarithmic=False)
        rates.set(title="Requests and answers a second", ylabel="a second")
        _beside(rates)
        lag.fill_between(_times(seconds), [s.lag for s in seconds], color=GREEN, alpha=0.35, linewidth=0)
        lag.plot(_times(seconds), [s.lag for s in seconds], color=GREEN, linewidth=1.2)
        drawing.scaled(lag, "y", logarithmic=False)
        lag.set(title="Acknowledged and not answered yet", ylabel="requests", xlabel="s")
        _from_to(lag, seconds)
    return figure


def stages(result: Result) -> Figure | None:
    """Where the mean request's time went."""
    return draw_stages({"": result.stages}, "Where the mean request's time went")


def batch_sizes(result: Result) -> Figure | None:
    """How many batches were of which size."""
    counts = result.batch_sizes
    if not sum(counts.values()):
        return None
    with drawn(2.8) as figure:
        axes = figure.subplots()
        bars = axes.bar(list(counts), list(counts.values()), color=BLUE, width=0.8)
        total = sum(counts.values())
        axes.bar_label(bars, [f"{100 * n / total:.0f} %" if n else "" for n in counts.values()], fontsize=8, padding=1)
        drawing.scaled(axes, "y", logarithmic=False)
        axes.margins(y=0.12)
        axes.set(title="Sizes of batches", ylabel="batches", xlabel="requests in a batch, at most")
    return figure


def memory_over_time(result: Result) -> Figure | None:
    """Resident memory of workers, broker and harness."""
    seconds = result.shown()
    names = dict.fromkeys(name for second in seconds for name, value in second.rss_mb.items() if value)
    if not names:
        return None
    columns = {name: _column(seconds, lambda s, name=name: s.rss_mb.get(name)) for name in names}  # type: ignore[misc]
    with drawn(2.8) as figure:
        axes = figure.subplots()
        times = np.array(_times(seconds))
        for index, (name, column) in enumerate(columns.items()):
            # Samples are about a second apart, so now and then one of the seconds has none.
            known = np.isfinite(column)
            axes.plot(times[known], column[known], label=name, **drawing.series(index))
        found = np.concatenate(list(columns.values()))
        drawing.scaled(axes, "y", logarithmic=drawing.wide(found[np.isfinite(found)]))
        axes.set(title="Resident memory", ylabel="MB", xlabel="s")
        _beside(axes)
        _from_to(axes, seconds)
    return figure


RUN_PICTURES: dict[str, tuple[str, Callable[[Result], Figure | None]]] = {
    "latency": ("Latency at each share of the requests, counted from when a request was due.", latency_percentiles),
    "latency-over-time": ("Latency of each second of the run.", latency_over_time),
    "rates": ("What was due, sent and answered in each second, and what waited at its end.", rates_over_time),
    "stages": ("The mean time in each stage. The parts follow each other from left to right.", stages),
    "batches": ("How many batches of which size the model answered.", batch_sizes),
    "memory": ("Resident memory of the processes that were seen.", memory_over_time),
}


def _times(seconds: tuple[Second, ...]) -> list[int]:
    return [second.second for second in seconds]


def _column(seconds: tuple[Second, ...], read: Callable[[Second], float | None]) -> NDArray[np.float64]:
    """None becomes NaN, which leaves a gap in a line."""
    return np.array([np.nan if (value := read(second)) is None else value for second in seconds], dtype=np.float64)


def _beside(axes: Axes) -> None:
    """A legend to the right of the lines, where it hides none."""
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


def _from_to(axes: Axes, seconds: tuple[Second, ...]) -> None:
    """Time from the first to the last second of the measured part."""
    first, last = seconds[0].second, seconds[-1].second
    axes.set_xlim(first, max(last, first + 1))


def compared_rates(comparison: Comparison) -> Figure | None:
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


def compared_cpus(comparison: Comparison) -> Figure | None:
    """CPU seconds of the workers a 100,000 answers."""
    return _compared(comparison, worker_cpu, "CPU of the workers a 100,000 answers", "s")


def compared_latencies(comparison: Comparison) -> Figure | None:
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
        # A contender's colour goes by its place, whether or not earlier contenders have a line.
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


def compared_stages(comparison: Comparison) -> Figure | None:
    """Where the mean request's time went, a bar a contender."""
    bars = {name: _middle_stages(results) for name, results in comparison.results.items()}
    return draw_stages(bars, "Where the mean request's time went, medians of the runs")


COMPARISON_PICTURES: dict[str, tuple[str, Callable[[Comparison], Figure | None]]] = {
    "rates": (
        "Answers a second: the median, a ring a run, and a whisker for the interval of the ratio to the first.",
        compared_rates,
    ),
    "cpu": ("CPU seconds of the workers a 100,000 answers: the median, and each run as a ring.", compared_cpus),
    "latency": ("Latency at each share of the requests; all runs of a contender together.", compared_latencies),
    "stages": ("The mean time in each stage, from left to right.", compared_stages),
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


class Picture(Struct, frozen=True):
    """One figure. ``name`` is the file's name; ``says`` describes the figure, also for those who can't see it."""

    name: str
    says: str
    figure: Figure


def pictures(document: Result | Comparison) -> Iterator[Picture]:
    """The pictures for which ``document`` has data, in the order of a report."""
    known = COMPARISON_PICTURES if isinstance(document, Comparison) else RUN_PICTURES
    for name, (says, draw) in known.items():
        figure = draw(document)  # type: ignore[arg-type]  # each module's pictures take its kind of document
        if figure is not None:
            yield Picture(name, says, figure)


def write_pictures(document: Result | Comparison, folder: Path) -> list[Path]:
    """Write each picture as a PNG file into ``folder``, which is made where it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    return [png(picture.figure, folder / f"{picture.name}.png") for picture in pictures(document)]
