"""Colours, axes and shapes that several pictures share, and a figure as SVG or PNG.

The colours of series are Okabe and Ito's, which colour-blind people can tell apart. The page replaces the colours of
ink, grid and paper by variables of its style sheet, so one SVG suits a light and a dark page.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from hdrh.histogram import HdrHistogram
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator
from msgspec import Struct
from numpy.typing import NDArray

from headrace_load.report.tables import milliseconds, short
from headrace_load.result import Latency, Stage

POINTS = 400


class Curve(Struct, frozen=True):
    """All but one in ``one_in[i]`` requests had a latency of at most ``milliseconds[i]``. Both arrays ascend."""

    one_in: NDArray[np.float64]
    milliseconds: NDArray[np.float64]


def curve(latencies: Iterable[Latency]) -> Curve | None:
    """The curve of all ``latencies`` together, up to the slowest request; None when they hold none.

    Each value is the highest of its bucket of the histogram, so it is at most the histogram's precision too high.
    """
    values, counts = _counted(latencies)
    total = int(counts.sum())
    if not total:
        return None
    upto = counts.cumsum()
    one_in = np.geomspace(1, total, min(POINTS, 2 * total)) if total > 1 else np.ones(1)
    # A fraction of 1 - k / total is slower than the k-th fastest; the last point is the slowest request.
    ranks = np.ceil(total * (1 - 1 / one_in) - 1e-9).clip(1, total)
    ranks[-1] = total
    return Curve(one_in, values[np.searchsorted(upto, ranks)] / 1000)


def _counted(latencies: Iterable[Latency]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Microseconds and how many requests took them, of all histograms."""
    counted: dict[int, int] = {}
    for latency in latencies:
        histogram = HdrHistogram.decode(latency.histogram)
        for bucket in histogram.get_recorded_iterator():
            value = histogram.get_highest_equivalent_value(bucket.value_iterated_to)
            counted[value] = counted.get(value, 0) + bucket.count_at_value_iterated_to
    values = sorted(counted)
    return np.array(values, dtype=np.int64), np.array([counted[value] for value in values], dtype=np.int64)


INK, FAINT, PAPER = "#202124", "#c9ccd1", "#fefefe"
BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, YELLOW, GREY = (
    "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#b8a800", "#8a8f98",
)  # fmt: skip
SERIES = (BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, YELLOW, GREY)
DASHES: tuple[str | tuple[int, tuple[int, ...]], ...] = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))  # type: ignore[assignment]
WIDE_RANGE = 20
WIDTH = 8.4

_STYLE: Any = {
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "text.color": INK,
    "text.parse_math": False,  # a name with a dollar sign is a name
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "figure.facecolor": PAPER,
    "axes.facecolor": "none",
    "svg.fonttype": "none",
}


@contextmanager
def drawn(height: float) -> Iterator[Figure]:
    """A figure ``height`` inches high to draw in, in the report's style."""
    with mpl.rc_context(_STYLE):
        yield Figure(figsize=(WIDTH, height), layout="constrained")


def series(index: int) -> dict[str, Any]:
    """Colour and dashes of the ``index``-th of many lines."""
    return {"color": SERIES[index % len(SERIES)], "linestyle": DASHES[index // len(SERIES) % len(DASHES)]}


def wide(values: Sequence[float] | NDArray[np.float64]) -> bool:
    """Whether ``values`` need a logarithmic axis: the largest is more than WIDE_RANGE times the smallest above 0."""
    positive = [value for value in values if value > 0]
    return bool(positive) and max(positive) > WIDE_RANGE * min(positive)


def scaled(axes: Axes, which: str, *, logarithmic: bool) -> None:
    """Plain numbers on one axis (``x`` or ``y``), from 0 where it is linear."""
    axis = getattr(axes, f"{which}axis")
    if logarithmic:
        getattr(axes, f"set_{which}scale")("log")
        axis.set_minor_formatter(NullFormatter())
    else:
        getattr(axes, f"set_{which}lim")(0, None)
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axes.grid(visible=True, axis=which)  # type: ignore[arg-type]


def nines(axes: Axes, most: float) -> None:
    """Make x the share of requests on a scale of nines, for x = one in how many are slower, up to ``most``."""
    axes.set_xscale("log")
    ticks = [2.0, *(10.0**power for power in range(1, 9) if 10.0**power <= most * 1.01)]
    axes.set_xlim(1, max(most, 2))
    axes.set_xticks(ticks, [f"{100 * (1 - 1 / tick):.8g} %" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("share of requests that were at most as slow")
    axes.grid(visible=True, axis="x")


def png(figure: Figure, path: Path) -> Path:
    """Write ``figure`` for screens of any kind: ink on paper."""
    figure.savefig(path, format="png", dpi=150)
    return path


def svg(figure: Figure, salt: str) -> str:
    """``figure`` as an element for a page that defines ``--ink``, ``--faint`` and ``--paper``.

    ``salt`` keeps the ids of several pictures in one page apart.
    """
    written = BytesIO()
    with mpl.rc_context({"svg.hashsalt": salt, **_STYLE}):
        figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    found = written.getvalue().decode()
    found = found[found.index("<svg") :]
    found = re.sub(r"<metadata>.*?</metadata>", "", found, flags=re.DOTALL)
    found = re.sub(r'<g id="[^"]*"', "<g", found)  # numbered alike in every picture, and nothing refers to them
    for colour, name in ((INK, "ink"), (FAINT, "faint"), (PAPER, "paper")):
        found = re.sub(f"(fill|stroke): {colour}", rf"\1: var(--{name})", found)
    return re.sub(r'(<svg [^>]*?)width="[^"]*" height="[^"]*"', r"\1", found, count=1)


_COLOURS = {
    "producing": ORANGE,
    "kafka": SKY,
    "gathering": PURPLE,
    "model": VERMILION,
    "publishing": GREEN,
    "reading": BLUE,
    "other": GREY,
}
_NARROW = 0.09
"""A stage that is shorter than this fraction of the longest bar has its time only in the legend."""


def draw_stages(bars: Mapping[str, Sequence[Stage]], title: str) -> Figure | None:
    """A bar for each name, with its stages from left to right. None if no bar has a stage."""
    found = {name: stages for name, stages in bars.items() if sum(stage.mean for stage in stages) > 0}
    if not found:
        return None
    longest = max(sum(max(stage.mean, 0) for stage in stages) for stages in found.values())
    names = list(dict.fromkeys(stage.name for stages in found.values() for stage in stages))
    with drawn(1.5 + 0.42 * len(found)) as figure:
        axes = figure.subplots()
        at = dict.fromkeys(found, 0.0)
        patches: dict[str, Artist] = {}
        for stage_name in names:
            colour = _COLOURS.get(stage_name, GREY)
            for row, (bar, stages) in enumerate(found.items()):
                for stage in stages:
                    if stage.name != stage_name:
                        continue
                    width = max(stage.mean, 0.0)  # "other" is what is left, and clocks can leave less than nothing
                    patch = axes.barh(row, width, left=at[bar], color=colour, height=0.62)
                    patches.setdefault(stage_name, patch.patches[0])
                    if width > _NARROW * longest:
                        text = milliseconds(stage.mean)
                        axes.text(
                            at[bar] + width / 2, row, text, ha="center", va="center", fontsize=8.5, color="#000000"
                        )
                    at[bar] += width
        for row, (bar, stages) in enumerate(found.items()):
            whole = milliseconds(sum(stage.mean for stage in stages))
            axes.text(at[bar] + 0.01 * longest, row, whole, va="center", fontsize=8.5)
        lone = next(iter(found.values())) if len(found) == 1 else ()
        times = {stage.name: f" {milliseconds(stage.mean)}" for stage in lone}
        axes.set_yticks(range(len(found)), [short(name) if name else "" for name in found])
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.invert_yaxis()
        axes.spines["left"].set_visible(False)
        scaled(axes, "x", logarithmic=False)
        axes.set_xlim(0, 1.1 * longest)
        axes.set(title=title, xlabel="ms")
        figure.legend(
            [patches[name] for name in names],
            [name + times.get(name, "") for name in names],
            loc="outside lower center",
            ncols=4,
        )
    return figure
