"""`headrace train`: labelled texts in a file become a version that workers can answer with."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

if TYPE_CHECKING:
    from rich.console import Console

    from headrace.training.dataset import Rows
    from headrace.training.recipe import Recipe
    from headrace.training.search import Epoch
    from headrace.training.splitting import Split
    from headrace.training.train import Trained


def train(
    data: Annotated[Path, typer.Argument(help="Labelled texts: .jsonl, .csv or .parquet.")],
    *,
    out: Annotated[str, typer.Option(help="Where the artifact goes: a path or any fsspec URI.")],
    text_column: Annotated[str, typer.Option(help="The column of the texts.")] = "text",
    label_column: Annotated[str, typer.Option(help="The column of the labels.")] = "label",
    valid: Annotated[Path | None, typer.Option(help="Validation rows; by default a tenth of DATA by hash.")] = None,
    test: Annotated[Path | None, typer.Option(help="Test rows; by default a tenth of DATA by hash.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Longest training; the validation rows may end it.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same artifact on one machine.")] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the training.")] = None,
) -> None:
    """Train a classifier on a file of labelled texts and write it as one artifact.

    Texts are divided by a hash into training, validation and test rows; the report is of the test rows, which nothing
    else has seen.
    """
    from rich.console import Console

    from headrace.model.artifact import save
    from headrace.training.cleaning import clean
    from headrace.training.dataset import read_rows
    from headrace.training.packing import lineage_of, pack
    from headrace.training.splitting import split
    from headrace.training.tables import report_tables

    console = Console()
    started = time.monotonic()

    def read(path: Path) -> Rows:
        return read_rows(path, text_column=text_column, label_column=label_column)

    rows = read(data)
    cleaned = clean(rows)
    parts = split(cleaned, valid=clean(read(valid)) if valid else None, test=read(test) if test else None)
    console.print(
        f"{len(rows):,} rows: {cleaned.empty:,} empty, {cleaned.duplicate:,} duplicate, {cleaned.conflicting:,}"
        f" conflicting and {parts.held_out:,} that a validation or test file holds are left out"
    )
    trained = _train(parts, _recipe(epochs, seed, threads), console)
    packed = pack(trained.network, parts.test, lineage_of(parts.train + parts.valid, data.name))
    save(packed.artifact, out)
    console.print("\n[bold]Test rows, answered by the int8 artifact on the cpu backend[/bold]")
    for table in report_tables(packed.report):
        console.print(table)
    console.print(
        f"fp32 beside it: accuracy {packed.float_report.accuracy:.2%}, macro-F1 {packed.float_report.macro_f1:.2%};"
        f" equal answers {packed.agreement:.2%}"
    )
    console.print(
        f"\n{out}: version {packed.artifact.version}, {packed.artifact.size / 1e6:.1f} MB,"
        f" sha256 {packed.artifact.sha256}, {time.monotonic() - started:.0f} s",
        soft_wrap=True,
    )


def _recipe(epochs: int | None, seed: int, threads: int | None) -> Recipe:
    from headrace.training.recipe import Recipe

    default = Recipe()
    return msgspec.structs.replace(
        default,
        seed=seed,
        threads=threads or default.threads,
        convolution=msgspec.structs.replace(default.convolution, epochs=epochs or default.convolution.epochs),
    )


def _train(parts: Split, recipe: Recipe, console: Console) -> Trained:
    from headrace.training.train import train as train_network

    console.print(
        f"training on {len(parts.train):,}, validating on {len(parts.valid):,}, testing on {len(parts.test):,} rows"
    )
    with _progress(console, recipe.convolution.epochs) as (on_epoch, on_refit):
        trained = train_network(parts.train, parts.valid, recipe, on_epoch=on_epoch, on_refit=on_refit)
    chosen = trained.chosen
    console.print(
        f"chosen on the validation rows: {chosen.number} epochs of {len(trained.epochs)}, accuracy"
        f" {chosen.accuracy:.2%}, weight of the convolution {trained.network.blend:.2f};"
        " then trained afresh with the validation rows"
    )
    return trained


@contextmanager
def _progress(console: Console, longest: int) -> Iterator[tuple[Callable[[Epoch], None], Callable[[int, int], None]]]:
    """Two bars, one a fit, with what the validation rows say beside the first."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.fields[note]}"), console=console) as progress:
        search = progress.add_task("search", total=longest, note="")
        refit = progress.add_task("refit", total=None, start=False, note="")

        def on_epoch(epoch: Epoch) -> None:
            progress.update(search, completed=epoch.number, note=f"validation accuracy {epoch.accuracy:.2%}")

        def on_refit(number: int, total: int) -> None:
            if number == 1:
                progress.update(search, total=progress.tasks[search].completed)
                progress.start_task(refit)
            progress.update(refit, completed=number, total=total)

        yield on_epoch, on_refit
