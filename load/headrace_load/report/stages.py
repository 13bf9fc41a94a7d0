"""Stacked bars of stages: of one run, or a bar a contender."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.artist import Artist
from matplotlib.figure import Figure

from headrace_load.report import drawing
from headrace_load.report.drawing import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, SKY, VERMILION, drawn
from headrace_load.report.words import milliseconds, short
from headrace_load.result import Stage

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
"""Of the longest bar; a stage below it has its time in the legend only."""


def draw_stages(bars: Mapping[str, Sequence[Stage]], title: str) -> Figure | None:
    """A bar a name, its stages from left to right. None when no bar has a stage."""
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
        drawing.scaled(axes, "x", logarithmic=False)
        axes.set_xlim(0, 1.1 * longest)
        axes.set(title=title, xlabel="ms")
        figure.legend(
            [patches[name] for name in names],
            [name + times.get(name, "") for name in names],
            loc="outside lower center",
            ncols=4,
        )
    return figure
