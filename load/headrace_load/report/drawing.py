"""What all pictures share: colours, axes, and a figure as SVG or PNG.

The colours of series are Okabe and Ito's, which colour-blind people can tell apart. Ink, grid and paper are marked
values that the page replaces by variables of its style sheet, so one SVG is read on light and on dark.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator
from numpy.typing import NDArray

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
