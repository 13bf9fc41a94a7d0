"""`headrace-load report`: the page and the pictures of a result, made again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headrace.files.output import check_output_folder
from headrace_load.commands import options
from headrace_load.result import read
from headrace_load.runs import report as write_all


def report(
    result: Annotated[
        Path, typer.Argument(metavar="RESULT", exists=True, dir_okay=False, help="A result.json or comparison.json.")
    ],
    *,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Where to. By default beside the result.")] = None,
) -> None:
    """Make the page and the pictures of a result again, and print its tables."""
    folder = out or result.parent
    check_output_folder(folder)
    document = read(result)
    folder.mkdir(parents=True, exist_ok=True)
    write_all(document, folder, options.console())
