"""`headrace predict`, `evaluate` and `bench-backend`: a version answers the texts of a file in this process."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from headrace.commands.common import (
    NAME,
    NO_LABEL,
    AsCsv,
    BackendName,
    BackendOption,
    Bootstrap,
    Delimiter,
    Encoding,
    LabelColumn,
    Model,
    TextColumn,
    begin,
    console,
    open_models,
    remark,
    say,
)
from headrace.commands.terminal import Form, form_of, row_writer
from headrace.core.errors import UserError
from headrace.core.text import printable, quantity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from headrace.files.table import Reading, Row
    from headrace.learning.data.files import Rows
    from headrace.learning.evaluate import Answered
    from headrace.model.artifact import Artifact
    from headrace.model.backends.interface import Backend
    from headrace.model.timing import Line, Timing
    from headrace_schemas.records import ModelVersion

CHUNK = 4096


def artifact_of(ctx: typer.Context, model: str, bootstrap: str | None) -> Artifact:
    """The artifact at a path or URI. If there is no such file, the artifact of an alias or version on the models topic.

    Raises ArtifactError, VersionNotFoundError and a KafkaError.
    """
    from headrace.kafka.interface import KafkaError
    from headrace.registry.versions import find_version, is_location, load_named, load_version

    if is_location(model) or not NAME.fullmatch(model):
        return load_named(model)
    settings = begin(ctx, bootstrap)

    async def find() -> ModelVersion:
        async with open_models(settings) as models:
            return find_version(models.log, settings.worker.model_name, model)

    try:
        version = asyncio.run(find())
    except KafkaError as error:
        error.add_note(f"There is no file {model!r} here, so it was looked for on Kafka as an alias or a version.")
        raise
    return load_version(version, settings.signing.trusted, settings.places())


def predict(
    ctx: typer.Context,
    model: Model,
    file: Annotated[
        Path, typer.Argument(help="Texts: JSON lines, CSV or Parquet, or lines of text (.txt, .log); packed or not.")
    ],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object a line, as into a pipe.")] = False,
    as_csv: AsCsv = False,
    backend: BackendOption = BackendName.CPU,
    text_column: TextColumn = "text",
    id_column: Annotated[str | None, typer.Option(help="A column to repeat beside each label.")] = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Label every text of a file and print label, score and text, a row a line. MODEL is a file, an alias or a version.

    On a terminal it prints a table whose texts are truncated at the edge, into a pipe JSON lines. The labels are those
    of a worker with this version: null, or empty in CSV, where the version abstains.
    """
    from headrace.files.table import Kind, Reading, check_file, read_file
    from headrace.model.backends.interface import open_backend

    form = form_of(as_json=as_json, as_csv=as_csv)
    if form is None and not sys.stdout.isatty():
        form = Form.JSON
    columns = (text_column,) if id_column is None else (text_column, id_column)
    check_file(file)
    reading = Reading(delimiter, encoding)
    kind = Kind.TEXT if columns == ("text",) and _has_lines_of_text(file, reading) else None
    rows = read_file(file, columns, kind=kind, reading=reading, tell=remark)
    opened = open_backend(backend.value, artifact_of(ctx, model, bootstrap))
    answers = predicted(opened, rows, text_column, id_column)
    # Faults of the whole file are reported before anything is printed.
    first = list(islice(answers, 1))
    names = (*columns[1:], "label", "score", "text")
    if form is None:
        shown = console()
        # A chunk at a time, so that a long file is read while it is answered. The first chunk decides the columns.
        widths: dict[str, int] = {}
        rows_left = chain(first, answers)
        while chunk := list(islice(rows_left, CHUNK)):
            shown.print(_answer_table(chunk, names, widths))
        return
    write = row_writer(form, names)
    for one in chain(first, answers):
        write(one)


def _answer_table(rows: Sequence[Mapping[str, object]], names: Sequence[str], widths: dict[str, int]) -> Table:
    """A line for each row, within the terminal's width. ``widths`` are those of the chunk before, which this chunk
    keeps.
    """
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    cells = [[_cell(row[name]) for name in names] for row in rows]
    table = Table(box=None, pad_edge=False, expand=True, show_header=not widths)
    for number, name in enumerate(names[:-1]):
        if name not in widths:
            longest = max(cell_len(name), len(NO_LABEL) * (name == "label"), *(cell_len(row[number]) for row in cells))
            widths[name] = min(longest, LONGEST_CELL)
        table.add_column(name, width=widths[name], no_wrap=True, overflow="ellipsis")
    # A long text only takes the room that the other columns leave.
    table.add_column(names[-1], ratio=1, no_wrap=True, overflow="ellipsis")
    for row in cells:
        table.add_row(*map(Text, row))
    return table


def _cell(value: object) -> str:
    if value is None:
        return NO_LABEL
    return f"{value:.3f}" if isinstance(value, float) else printable(" ".join(str(value).split()))


def _has_lines_of_text(file: Path, reading: Reading) -> bool:
    """Whether `headrace publish` would take each line of ``file`` as a text; some tables are named .txt too."""
    from headrace.commands.publish import seen_as
    from headrace.files.table import Kind, kind_of, read_file

    if kind_of(str(file)) is not Kind.TEXT:
        return False
    lines = (row.string("text").strip() for row in read_file(file, None, kind=Kind.TEXT, reading=reading))
    return seen_as(next(filter(None, lines), ""), "text") is None


def predicted(
    backend: Backend, rows: Iterator[Row], text_column: str, id_column: str | None
) -> Iterator[dict[str, object]]:
    """Each row's id, label, score and text, in the order of the rows; memory holds some thousands of them.

    Raises DatasetError for a value that is no text.
    """
    from headrace.learning.evaluate import answer_scored

    threshold = backend.artifact.about.threshold or 0.0
    while chunk := list(islice(rows, CHUNK)):
        texts = [row.string(text_column) for row in chunk]
        answered = answer_scored(backend, texts)
        for row, text, label, exact in zip(chunk, texts, answered.labels, answered.scores, strict=True):
            known = {} if id_column is None else {id_column: row.values[id_column]}
            score = round(exact, 6)
            yield {**known, "label": label if score >= threshold else None, "score": score, "text": text}


SHOWN_ERRORS = 50
LONGEST_CELL = 24


class Mistake(msgspec.Struct, frozen=True, kw_only=True):
    """Row ``row`` of the file, counted from 1, is of class ``label`` and was answered ``answered``."""

    row: int
    label: str
    answered: str
    score: float
    text: str


COLUMNS = tuple(Mistake.__struct_fields__)


def evaluate(
    ctx: typer.Context,
    model: Model,
    file: Annotated[Path, typer.Argument(help="Labelled texts: JSON, CSV or Parquet, packed or not.")],
    *,
    errors: Annotated[
        bool, typer.Option("--errors", help="Instead of the report, show the wrong answers, the surest first.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the report as one JSON object; with --errors one a row.")
    ] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="With --errors: print CSV.")] = False,
    backend: BackendOption = BackendName.CPU,
    text_column: TextColumn = "text",
    label_column: LabelColumn = "label",
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Answer every row of a file with an artifact and report accuracy, macro-F1, each class and the mistakes.

    Labels are cleaned as in training; texts are taken as they are. A row with a label that the artifact does not know
    counts as wrong.
    """
    from headrace.commands.terminal import report_tables, report_warnings
    from headrace.core.text import label_name
    from headrace.files.table import Reading, check_file
    from headrace.learning.data.files import read_rows
    from headrace.learning.evaluate import answer_scored, compare
    from headrace.model.backends.interface import open_backend

    form = form_of(as_json=as_json, as_csv=as_csv)
    if as_csv and not errors:
        raise UserError("--csv writes the rows that --errors picks: give both.")
    check_file(file)
    reading = Reading(delimiter, encoding)
    artifact = artifact_of(ctx, model, bootstrap)
    opened = open_backend(backend.value, artifact)
    rows = read_rows(file, text_column=text_column, label_column=label_column, reading=reading, tell=remark)
    if not len(rows):
        raise UserError(f"{file}: has no rows to evaluate on")
    answered = answer_scored(opened, rows.texts)
    if errors:
        _show_errors(errors_of(rows, answered), len(rows), form)
        return
    learnt = set(map(label_name, artifact.labels))
    report = compare(rows.labels, answered.labels, learnt=learnt)
    if as_json:
        say(msgspec.json.encode(report).decode())
        return
    shown = console()
    shown.print(f"{model}: version {artifact.version}, answered by the {backend.value} backend", soft_wrap=True)
    unknown = sorted(set(rows.labels) - learnt)
    if unknown:
        shown.print(f"labels that this version does not know, counted as wrong: {', '.join(unknown[:20])}")
    for part in (*report_tables(report), *report_warnings(report)):
        shown.print(part)


def errors_of(rows: Rows, answered: Answered) -> list[Mistake]:
    """The wrongly answered rows, those with the highest score first, because their labels are often wrong."""
    pairs = zip(rows.texts, rows.labels, answered.labels, answered.scores, strict=True)
    mistakes = [
        Mistake(row=number, label=label, answered=answer, score=round(score, 4), text=text)
        for number, (text, label, answer, score) in enumerate(pairs, 1)
        if answer != label
    ]
    return sorted(mistakes, key=lambda one: -one.score)


def _show_errors(mistakes: Sequence[Mistake], rows: int, form: Form | None) -> None:
    if form is not None:
        write = row_writer(form, COLUMNS)
        for one in mistakes:
            write(msgspec.to_builtins(one))
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, expand=True)
    for name in COLUMNS[:-1]:
        table.add_column(name, max_width=20, overflow="fold")
    # A long text takes the room that the other columns leave, and none of theirs.
    table.add_column(COLUMNS[-1], ratio=1, no_wrap=True, overflow="ellipsis")
    for one in mistakes[:SHOWN_ERRORS]:
        cells = (f"{one.row}", one.label, one.answered, f"{one.score:.3f}", " ".join(one.text.split()))
        table.add_row(*map(Text, cells))
    shown = console()
    if mistakes:
        shown.print(table)
    more = len(mistakes) - SHOWN_ERRORS
    rest = f"; {more:,} more with --json or --csv" if more > 0 else ""
    shown.print(
        f"{len(mistakes):,} of {quantity(rows, 'row')} {'is' if len(mistakes) == 1 else 'are'} answered wrongly{rest}"
    )


LARGEST_BATCH = 4096
"""A power of two, and the largest worker.max_batch."""


def bench_backend(
    ctx: typer.Context,
    model: Annotated[str, typer.Option(help="An artifact (path or URI), an alias or a version.")],
    texts: Annotated[Path, typer.Option(metavar="FILE", help="A text a line, or JSON, CSV or Parquet with text.")],
    *,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    backend: BackendOption = BackendName.CPU,
    threads: Annotated[int, typer.Option(min=1, help="Threads that share a batch.")] = 1,
    rounds: Annotated[int, typer.Option(min=1, help="Passes over the texts; the fastest counts.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as one JSON object.")] = False,
    bootstrap: Bootstrap = None,
) -> None:
    """Time a backend alone, without Kafka, on batches of 1, 2, 4, ... 4,096 texts of a file.

    Prints microseconds a batch and texts a second for each size, the line T(n) = a n + b fitted to them, and the
    smallest size with 90 % of the best rate, for worker.max_batch. A slow backend gets fewer texts and sizes.
    """
    import os
    import time

    # BLAS threads beside our own would triple the time of both. numpy reads the variable when it loads.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

    from headrace.files.table import Reading, check_file
    from headrace.model.backends.interface import open_backend
    from headrace.model.timing import Report, fit, measure, suggested, texts_for

    check_file(texts)
    artifact = artifact_of(ctx, model, bootstrap)
    opened = open_backend(backend.value, artifact, threads)
    given = read_texts(texts, Reading(delimiter, encoding))
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
        f"backend {report.backend}, version {report.model}, threads {threads}; passes over "
        f"{quantity(report.texts, 'text')} of {report.mean_bytes:.0f} bytes, the fastest of {rounds}",
        soft_wrap=True,
    )
    shown.print(_timings_table(timings, line))
    shown.print(f"T(n) = {line.a * 1e6:.3g} us x n + {line.b * 1e6:.3g} us")
    peak = max(timing.rate for timing in timings)
    shown.print(f"worker.max_batch = {chosen.size} has {chosen.rate / peak:.0%} of the best rate")


def read_texts(file: Path, reading: Reading | None = None) -> list[bytes]:
    """The texts of a file, in UTF-8: its lines, or the column text of a table; empty ones are left out.

    Raises UserError for a file that can't be read, has a row that is no text, or has none at all.
    """
    from headrace.files.table import Kind, Reading, find_kind, read_file

    kind = find_kind(file) or Kind.TEXT
    rows = read_file(file, ("text",), kind=kind, reading=reading or Reading(), tell=remark)
    texts = [text.encode("utf-8", "replace") for row in rows if (text := row.string("text")).strip()]
    if not texts:
        raise UserError(f"{file}: has no texts to time a backend on")
    return texts


def _timings_table(timings: Sequence[Timing], line: Line) -> Table:
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
