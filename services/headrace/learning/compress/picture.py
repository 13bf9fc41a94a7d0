"""A compression's curve as a picture: SVG, the same bytes for the same curve.

A module of its own, because a trainer reads curves and draws none: matplotlib loads with this module.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from headrace.learning.compress.curve import Curve, Point, Tuning

_STYLES = {
    Tuning.NONE: ("o", "#7f7f7f", "pruned"),
    Tuning.WIDE: ("s", "#1f77b4", "and wide part refitted"),
    Tuning.BOTH: ("^", "#2ca02c", "and convolution tuned"),
}


def draw(curve: Curve, title: str) -> bytes:
    """Macro-F1 against size, and against the time of a text; a line where the budget ends."""
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    figure.suptitle(title)
    left, right = figure.subplots(1, 2, sharey=True)
    _draw_points(left, curve, lambda point: point.score.size / 1000)
    left.set(xscale="log", xlabel="artifact, kB", ylabel="macro-F1 on the validation rows, %")
    left.plot(curve.original.size / 1000, 100 * curve.original.macro_f1, "k*", markersize=11, label="fp32")
    _draw_points(right, curve, lambda point: point.score.latency_us or 0.0)
    right.set(xlabel="a text on one thread, µs")
    for axes in (left, right):
        least = 100 * curve.original.macro_f1 - curve.budget.points
        axes.axhline(least, color="k", linewidth=0.8, linestyle=":", label="budget")
        axes.grid(alpha=0.3)
    left.legend()
    written = BytesIO()
    # Ids that do not change and no date: equal curves give equal files.
    with mpl.rc_context({"svg.hashsalt": "headrace", "svg.fonttype": "none"}):
        figure.savefig(written, format="svg", metadata={"Date": None})
    return written.getvalue()


def _draw_points(axes: Axes, curve: Curve, across: Callable[[Point], float]) -> None:
    for tuning, (marker, color, label) in _STYLES.items():
        chosen = [point for point in curve.points if point.tuning is tuning]
        axes.plot(
            [across(point) for point in chosen],
            [100 * point.score.macro_f1 for point in chosen],
            marker,
            color=color,
            label=label,
        )
    axes.plot(
        across(curve.chosen),
        100 * curve.chosen.score.macro_f1,
        "o",
        markersize=14,
        markerfacecolor="none",
        color="#d62728",
        label="taken",
    )
