"""`headrace labels`: labelled texts to learn from, published and erased."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from headrace.commands.common import Bootstrap, begin, cluster_of, say

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.callback()
def labels() -> None:
    """Publish labelled texts for the trainer, and erase them."""


@app.command()
def publish(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help="Labelled texts: .jsonl, .csv or .parquet.")],
    *,
    text_column: Annotated[str, typer.Option(help="The column of the texts.")] = "text",
    label_column: Annotated[str, typer.Option(help="The column of the labels.")] = "label",
    id_column: Annotated[
        str | None, typer.Option(help="The column of the ids; without it a text's words make its id.")
    ] = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Publish a label a row. A label with the id of an earlier one replaces it."""
    from headrace.training.dataset import read_ids, read_rows
    from headrace.training.labelling import labelled, publish_labels

    settings = begin(ctx, {"--bootstrap": ("kafka.bootstrap", bootstrap)})
    topic = settings.topics.names().labels
    rows = read_rows(file, text_column=text_column, label_column=label_column)
    ids = None
    if id_column is not None:
        ids = read_ids(file, text_column=text_column, id_column=id_column)
    total = asyncio.run(publish_labels(cluster_of(settings), topic, labels=labelled(rows, ids)))
    say(f"published {total:,} labels to {topic}")


@app.command()
def erase(
    ctx: typer.Context,
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Ids of labels.")] = None,
    *,
    text: Annotated[
        list[str] | None, typer.Option(help="A text that was published without an id. May be repeated.")
    ] = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Erase labelled texts from every version that is trained from now on. Versions that exist still know them."""
    from headrace.core.errors import UserError
    from headrace.training.labelling import ids_by_every_hashing, publish_labels, text_ids

    settings = begin(ctx, {"--bootstrap": ("kafka.bootstrap", bootstrap)})
    topic = settings.topics.names().labels
    erased = [*(ids or ()), *ids_by_every_hashing(text or ())]
    if not all([*(ids or ()), *text_ids(text or ())]) or not erased:
        raise UserError("There is nothing to erase: name ids, or --text with a text that has words.")
    total = asyncio.run(publish_labels(cluster_of(settings), topic, erased=erased))
    say(f"erased {total:,} labels on {topic}")
