"""`headrace predict`: label the texts of a file with an artifact, without Kafka."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.commands.common import BackendName, Delimiter, Encoding, remark
from headrace.commands.output import Form, form_of, row_writer
from headrace.core.errors import UserError

if TYPE_CHECKING:
    from headrace.files.table import Row
    from headrace.model.backends.interface import Backend

CHUNK = 4096


def predict(
    model: Annotated[str, typer.Argument(help="The artifact: a path or URI.")],
    file: Annotated[Path, typer.Argument(help="Texts: JSON lines, CSV or Parquet, packed or not.")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object a line; this is the default.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Lines of CSV, the first of which names the columns.")] = False,
    backend: Annotated[BackendName, typer.Option(help="cuda needs a GPU; reference is slow.")] = BackendName.CPU,
    text_column: Annotated[str, typer.Option(help="The column of the texts.")] = "text",
    id_column: Annotated[str | None, typer.Option(help="A column to repeat beside each label.")] = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
) -> None:
    """Label every text of a file and print label, score and text, a row a line.

    The labels are those that a worker with this version gives: null, or empty in CSV, where the version abstains.
    """
    from headrace.files.table import Reading, check_file, read_file
    from headrace.model.artifact import ArtifactError
    from headrace.model.backends.interface import open_backend
    from headrace.registry.versions import load_named

    form = form_of(as_json=as_json, as_csv=as_csv) or Form.JSON
    columns = (text_column,) if id_column is None else (text_column, id_column)
    check_file(file)
    rows = read_file(file, columns, reading=Reading(delimiter, encoding), tell=remark)
    try:
        opened = open_backend(backend.value, load_named(model))
    except ArtifactError as error:
        raise UserError(str(error)) from error
    write = row_writer(form, (*columns[1:], "label", "score", "text"))
    for one in predicted(opened, rows, text_column, id_column):
        write(one)


def predicted(
    backend: Backend, rows: Iterator[Row], text_column: str, id_column: str | None
) -> Iterator[dict[str, object]]:
    """Each row's id, label, score and text, in the order of the rows; memory holds some thousands of them.

    Raises DatasetError for a text that is none.
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
