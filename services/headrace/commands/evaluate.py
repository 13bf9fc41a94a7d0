"""`headrace evaluate`: how well any artifact answers any file of labelled texts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from headrace.commands.common import BackendName, console, say


def evaluate(
    model: Annotated[str, typer.Argument(help="The artifact: a path or URI.")],
    file: Annotated[Path, typer.Argument(help="Labelled texts: .jsonl, .csv or .parquet.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as one JSON object.")] = False,
    backend: Annotated[BackendName, typer.Option(help="cuda needs a GPU; reference is slow.")] = BackendName.CPU,
    text_column: Annotated[str, typer.Option(help="The column of the texts.")] = "text",
    label_column: Annotated[str, typer.Option(help="The column of the labels.")] = "label",
) -> None:
    """Answer every row of a file with an artifact and report accuracy, macro-F1, each class and the mistakes.

    Labels are cleaned as training cleans them, texts are taken as they are. A row whose label the artifact does not
    know counts as wrong.
    """
    from headrace.core.errors import UserError
    from headrace.core.label_names import label_name
    from headrace.model.artifact import ArtifactError, load
    from headrace.model.backends.interface import open_backend
    from headrace.training.answering import answer
    from headrace.training.dataset import read_rows
    from headrace.training.report import compare
    from headrace.training.tables import report_tables

    rows = read_rows(file, text_column=text_column, label_column=label_column)
    if not len(rows):
        raise UserError(f"{file}: has no rows to evaluate on")
    try:
        artifact = load(model)
    except ArtifactError as error:
        raise UserError(str(error)) from error
    report = compare(rows.labels, answer(open_backend(backend.value, artifact), rows.texts))
    if as_json:
        say(msgspec.json.encode(report).decode())
        return
    shown = console()
    shown.print(f"{model}: version {artifact.version}, answered by the {backend.value} backend", soft_wrap=True)
    unknown = sorted(set(rows.labels) - set(map(label_name, artifact.labels)))
    if unknown:
        shown.print(f"labels that this version does not know, counted as wrong: {', '.join(unknown[:20])}")
    for table in report_tables(report):
        shown.print(table)
