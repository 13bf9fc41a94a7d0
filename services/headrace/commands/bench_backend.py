"""`headrace bench-backend`: how long a backend takes for a batch, by its size, and which batch bound follows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from headrace.commands.common import BackendName, Delimiter, Encoding, console, remark, say

if TYPE_CHECKING:
    from rich.table import Table

    from headrace.files.table import Reading
    from headrace.model.timing import Line, Timing

LARGEST_BATCH = 4096
"""A power of two, and what worker.max_batch may be at most."""


def bench_backend(
    model: Annotated[str, typer.Option(help="The artifact: a path or URI.")],
    texts: Annotated[Path, typer.Option(metavar="FILE", help="A text a line, or JSON, CSV or Parquet with text.")],
    *,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    backend: Annotated[BackendName, typer.Option(help="cuda needs a GPU; reference is slow.")] = BackendName.CPU,
    threads: Annotated[int, typer.Option(min=1, help="Threads that share a batch.")] = 1,
    rounds: Annotated[int, typer.Option(min=1, help="Passes over the texts; the fastest counts.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as one JSON object.")] = False,
) -> None:
    """Time a backend alone, without Kafka, on batches of 1, 2, 4, ... 4,096 texts of a file.

    Prints microseconds a batch and texts a second for each size, the line T(n) = a n + b fitted to them, and the
    smallest size with 90 % of the best rate, for worker.max_batch. A slow backend gets fewer texts and sizes.
    """
    import os
    import time

    # Threads of BLAS beside our own triple the time of both. It is read when numpy loads.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

    from headrace.core.errors import UserError
    from headrace.files.table import Reading
    from headrace.model.artifact import ArtifactError
    from headrace.model.backends.interface import open_backend
    from headrace.model.timing import Report, fit, measure, suggested, texts_for
    from headrace.registry.versions import load_named

    given = read_texts(texts, Reading(delimiter, encoding))
    try:
        artifact = load_named(model)
    except ArtifactError as error:
        raise UserError(str(error)) from error
    opened = open_backend(backend.value, artifact, threads)
    opened.warm()
    taken = texts_for(given, opened.classify, time.perf_counter, LARGEST_BATCH)
    timings = measure(opened.classify, taken, rounds, time.perf_counter)
    line, chosen = fit(timings), suggested(timings)
    report = Report(
        backend=backend.value,
        model=artifact.version,
        threads=threads,
        texts=len(taken),
        mean_bytes=sum(map(len, taken)) / len(taken),
        timings=tuple(timings),
        a=line.a,
        b=line.b,
        max_batch=chosen.size,
    )
    if as_json:
        say(msgspec.json.encode(report).decode())
        return
    shown = console()
    shown.print(
        f"backend {report.backend}, version {report.model}, threads {threads}; passes over {report.texts:,} texts of "
        f"{report.mean_bytes:.0f} bytes, the fastest of {rounds}",
        soft_wrap=True,
    )
    shown.print(_table(timings, line))
    shown.print(f"T(n) = {line.a * 1e6:.3g} us x n + {line.b * 1e6:.3g} us")
    peak = max(timing.rate for timing in timings)
    shown.print(f"worker.max_batch = {chosen.size} has {chosen.rate / peak:.0%} of the best rate")


def read_texts(file: Path, reading: Reading | None = None) -> list[bytes]:
    """The texts of a file, in UTF-8: its lines, or the column text of a table; empty ones are left out.

    Raises UserError for a file that can't be read, has a row that is no text, or has none at all.
    """
    from headrace.core.errors import UserError
    from headrace.files.table import Kind, Reading, find_kind, read_file

    kind = find_kind(file) or Kind.TEXT
    rows = read_file(file, ("text",), kind=kind, reading=reading or Reading(), tell=remark)
    texts = [text.encode("utf-8", "replace") for row in rows if (text := row.string("text")).strip()]
    if not texts:
        raise UserError(f"{file}: has no texts to time a backend on")
    return texts


def _table(timings: Sequence[Timing], line: Line) -> Table:
    from rich.table import Table

    table = Table("batch", "us a batch", "us by the line", "texts/s", "of the best")
    for column in table.columns:
        column.justify = "right"
    peak = max(timing.rate for timing in timings)
    for timing in timings:
        table.add_row(
            f"{timing.size:,}",
            f"{timing.seconds * 1e6:,.1f}",
            f"{line.seconds(timing.size) * 1e6:,.1f}",
            f"{timing.rate:,.0f}",
            f"{timing.rate / peak:.0%}",
        )
    return table
