"""The pictures of one run. A function gives None where the run has nothing to show."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from headrace_load.report import drawing
from headrace_load.report.drawing import BLUE, GREEN, GREY, ORANGE, VERMILION, curve, draw_stages, drawn
from headrace_load.report.words import milliseconds
from headrace_load.result import Result, Second


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


ALL: dict[str, tuple[str, Callable[[Result], Figure | None]]] = {
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
