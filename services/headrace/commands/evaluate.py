"""`headrace evaluate`: how well any artifact answers any file of labelled texts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from headrace.commands.common import BackendName, Delimiter, Encoding, console, remark, say
from headrace.commands.output import Form, form_of, row_writer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.learning.data.files import Rows
    from headrace.learning.evaluate import Answered

SHOWN_ERRORS = 50


class Mistake(msgspec.Struct, frozen=True, kw_only=True):
    """Row ``row`` of the file, counted from 1, is of class ``label`` and was answered ``answered``."""

    row: int
    label: str
    answered: str
    score: float
    text: str


COLUMNS = tuple(Mistake.__struct_fields__)


def evaluate(
    model: Annotated[str, typer.Argument(help="The artifact: a path or URI.")],
    file: Annotated[Path, typer.Argument(help="Labelled texts: JSON, CSV or Parquet, packed or not.")],
    *,
    errors: Annotated[
        bool, typer.Option("--errors", help="Show the rows that are answered wrongly, the surest first, and no report.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the report as one JSON object; with --errors one a row.")
    ] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="With --errors: lines of CSV.")] = False,
    backend: Annotated[BackendName, typer.Option(help="cuda needs a GPU; reference is slow.")] = BackendName.CPU,
    text_column: Annotated[str, typer.Option(help="The column of the texts.")] = "text",
    label_column: Annotated[str, typer.Option(help="The column of the labels.")] = "label",
    delimiter: Delimiter = None,
    encoding: Encoding = None,
) -> None:
    """Answer every row of a file with an artifact and report accuracy, macro-F1, each class and the mistakes.

    Labels are cleaned as training cleans them, texts are taken as they are. A row whose label the artifact does not
    know counts as wrong.
    """
    from headrace.commands.tables import report_tables, report_warnings
    from headrace.core.errors import UserError
    from headrace.core.label_names import label_name
    from headrace.files.table import Reading, check_file
    from headrace.learning.data.files import read_rows
    from headrace.learning.evaluate import answer_scored
    from headrace.learning.report import compare
    from headrace.model.artifact import ArtifactError
    from headrace.model.backends.interface import open_backend
    from headrace.registry.versions import load_named

    form = form_of(as_json=as_json, as_csv=as_csv)
    if as_csv and not errors:
        raise UserError("--csv writes the rows that --errors picks: give both.")
    check_file(file)
    reading = Reading(delimiter, encoding)
    try:
        artifact = load_named(model)
    except ArtifactError as error:
        raise UserError(str(error)) from error
    rows = read_rows(file, text_column=text_column, label_column=label_column, reading=reading, tell=remark)
    if not len(rows):
        raise UserError(f"{file}: has no rows to evaluate on")
    answered = answer_scored(open_backend(backend.value, artifact), rows.texts)
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
    """The rows that were answered wrongly, those with the highest score first: such labels are often wrong."""
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
    shown.print(f"{len(mistakes):,} of {rows:,} rows are answered wrongly{rest}")
