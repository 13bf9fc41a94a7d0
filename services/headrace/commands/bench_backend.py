"""`headrace bench-backend`: how long a backend takes for a batch, by its size, and which batch bound follows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from headrace.commands.common import BackendName, console, say

if TYPE_CHECKING:
    from rich.table import Table

    from headrace.model.timing import Line, Timing

LARGEST_BATCH = 4096
"""A power of two, and what worker.max_batch may be at most."""


def bench_backend(
    model: Annotated[str, typer.Option(help="The artifact: a path or URI.")],
    texts: Annotated[Path, typer.Option(metavar="FILE", help="A text a line, or .jsonl with text in each line.")],
    *,
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
    from headrace.model.artifact import ArtifactError
    from headrace.model.backends.interface import open_backend
    from headrace.model.timing import Report, fit, measure, suggested, texts_for
    from headrace.registry.loading import load_named

    given = read_texts(texts)
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


def read_texts(file: Path) -> list[bytes]:
    """The texts of a file, in UTF-8: its lines, or of .jsonl the text of each; empty lines are left out.

    Raises UserError for a file that can't be read, has a line that is no text, or has none at all.
    """
    from headrace.core.errors import UserError
    from headrace_schemas import WireError, decode_request

    try:
        lines = file.read_bytes().splitlines()
    except OSError as error:
        raise UserError(f"{file}: can't be read ({error.strerror or error})") from error
    texts = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            text = decode_request(line).text if file.suffix.lower() == ".jsonl" else line.decode()
        except (WireError, UnicodeDecodeError) as error:
            raise UserError(f"{file}, line {number}: {error}") from error
        texts.append(text.encode())
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
