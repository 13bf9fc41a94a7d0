"""The pictures of a result, as SVG for the page and as PNG files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from matplotlib.figure import Figure
from msgspec import Struct

from headrace_load.report import comparison_pictures, run_pictures
from headrace_load.report.drawing import png
from headrace_load.result import Comparison, Result


class Picture(Struct, frozen=True):
    """One figure; ``name`` is its file's, ``says`` what it shows, for those who read it and those who can't see it."""

    name: str
    says: str
    figure: Figure


def pictures(document: Result | Comparison) -> Iterator[Picture]:
    """The pictures that ``document`` has something for, in the order of a report."""
    known = comparison_pictures.ALL if isinstance(document, Comparison) else run_pictures.ALL
    for name, (says, draw) in known.items():
        figure = draw(document)  # type: ignore[arg-type]  # each module's pictures take its kind of document
        if figure is not None:
            yield Picture(name, says, figure)


def write_pictures(document: Result | Comparison, folder: Path) -> list[Path]:
    """Write each picture as a PNG file into ``folder``, which is made where it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    return [png(picture.figure, folder / f"{picture.name}.png") for picture in pictures(document)]
