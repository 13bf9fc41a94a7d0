"""`headrace train`: labelled texts in a file become a version that workers can answer with."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from headrace.commands.common import (
    Delimiter,
    Encoding,
    Invocation,
    LabelColumn,
    TextColumn,
    place_for,
    remark,
    settings_from,
)
from headrace.commands.teach import (
    TEACHER_HELP,
    LabelsFile,
    Lesson,
    MayLeave,
    Model,
    Taught,
    check_sources,
    learn_labels,
    leaving,
    teacher_options,
)
from headrace.core.text import quantity

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from headrace.learning.data.features import Lengths
    from headrace.learning.data.split import Splits
    from headrace.learning.distributed.job import Job, Outcome
    from headrace.learning.distributed.launch import Nodes
    from headrace.model.places import Places
    from headrace.security.private_folder import PrivateFolder
    from headrace_schemas.records import Lineage

OnEvent = Callable[[Mapping[str, Any]], None]

QUICK_EPOCHS = 4
LABELS_NAMED = 20


def train(
    ctx: typer.Context,
    data: Annotated[
        Path | None, typer.Argument(metavar="DATA", help="Labelled texts: JSON, CSV or Parquet, packed or not.")
    ] = None,
    *,
    out: Annotated[str, typer.Option(help="Where the artifact goes: a path or URI.")],
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
    text_column: TextColumn = "text",
    label_column: LabelColumn = "label",
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    valid: Annotated[
        Path | None, typer.Option(help="Validation rows; by default a tenth of DATA, chosen by hash.")
    ] = None,
    test: Annotated[Path | None, typer.Option(help="Test rows; by default a tenth of DATA, chosen by hash.")] = None,
    unlabelled: Annotated[
        Path | None,
        typer.Option("--unlabelled", metavar="FILE", help="Texts that a teacher labels first, for the training too."),
    ] = None,
    teacher: Annotated[
        str | None, typer.Option("--teacher", metavar="TEACHER", help=f"Who labels --unlabelled: {TEACHER_HELP}")
    ] = None,
    taught: Annotated[
        Path | None,
        typer.Option("--taught", metavar="FILE", help="A teacher's labels; with --unlabelled, where they are kept."),
    ] = None,
    labels: LabelsFile = None,
    model: Model = None,
    may_leave: MayLeave = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="The most epochs; the validation rows may end it sooner.")
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(min=1, max=32_768, help="Words read of each text; by default those of the longest, to 2048."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same artifact on one machine.")] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the training.")] = None,
    budget: Annotated[
        float, typer.Option(min=0, help="Points of validation macro-F1 that compression may cost; 0: none.")
    ] = 0.5,
    quick: Annotated[
        bool, typer.Option("--quick", help="For a first look: at most 4 epochs, and fewer sizes of the artifact tried.")
    ] = False,
    vectors: Annotated[
        str | None, typer.Option(help="Pretrained vectors that words begin from, if installed: glove-6b-50d.")
    ] = None,
    accept: Annotated[
        float | None,
        typer.Option(min=0.01, max=0.99, help="Abstain below the score that this fraction of answers reaches."),
    ] = None,
    ranks: Annotated[int, typer.Option(min=1, help="Processes of the training on this machine.")] = 1,
    nnodes: Annotated[int, typer.Option(min=1, help="Machines of the training, each of which runs this command.")] = 1,
    node_rank: Annotated[int, typer.Option(min=0, help="The number of this machine, from 0.")] = 0,
    rdzv_endpoint: Annotated[str | None, typer.Option(help="HOST:PORT at which machine 0 awaits the others.")] = None,
    shared: Annotated[
        str | None, typer.Option(help="With --nnodes, an empty folder or URI that all machines reach.")
    ] = None,
    address: Annotated[str | None, typer.Option(help="This machine's own IP address.")] = None,
    unauthenticated_exchange: Annotated[
        bool,
        typer.Option(
            "--unauthenticated-exchange",
            help="With --nnodes, accept that anybody who reaches the machines' sockets can change the training.",
        ),
    ] = False,
) -> None:
    """Train a classifier on a file of labelled texts and write it as one artifact.

    Texts are divided by a hash into training, validation and test rows; the report is of the test rows, which nothing
    else has seen. A teacher's labels train and never decide. Without DATA the version is unproven.
    """
    import os

    # BLAS threads beside those of the training make both slower. It is read when numpy loads.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

    from headrace.security.private_folder import PrivateFolder, keep_what_matplotlib_caches, temporary_folder

    # Read when matplotlib loads, which what follows brings along.
    keep_what_matplotlib_caches(os.environ)

    from headrace.commands.terminal import Terminal
    from headrace.labeller.teachers.interface import Kind, parse_teacher

    console = Terminal()
    # It takes seconds.
    with console.status("loading PyTorch"):
        from headrace.files.table import Reading, read_file
        from headrace.learning.compress.curve import Budget
        from headrace.learning.data.split import Splits
        from headrace.learning.data.vectors import check_vectors
        from headrace.learning.distributed.job import FileSource, Job
        from headrace.learning.fit.hyperparameters import TeachingRecipe, adapted
        from headrace.model.artifact import load, save
        from headrace.model.places import places_of

    # An end by signal, too, leaves no folder and no ranks behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    # All that can be looked at, before anything else is done.
    where = place_for(out, force=force)
    if shared is not None:
        place_for(f"{shared.rstrip('/')}/headrace.try", force=True)
    check_vectors(vectors)
    settings = settings_from(ctx, teacher_options(labels, model)).settings
    trainer = settings.trainer
    check_sources(data, valid, test, unlabelled, teacher, taught, nnodes)
    splits = Splits(trainer.split_key, trainer.previous_split_key)
    nodes = _nodes(nnodes, node_rank, rdzv_endpoint, address, shared, accepted=unauthenticated_exchange)
    reading = Reading(delimiter, encoding)
    for file in (data, valid, test):
        # Here, once: the ranks, which may be many, read it without a word.
        if file is not None:
            next(read_file(file, (text_column, label_column), reading=reading, tell=remark), None)
    with temporary_folder("headrace-train-") as made:
        folder = str(made)
        told = Taught()
        if unlabelled is not None:
            lesson = Lesson(
                teacher=parse_teacher(teacher or str(Kind.ENCODER)),
                unlabelled=unlabelled,
                data=data,
                valid=valid,
                test=test,
                text_column=text_column,
                label_column=label_column,
                reading=reading,
            )
            taught = taught or made / "taught.jsonl"
            asked = msgspec.structs.replace(settings, teacher=leaving(settings.teacher, may_leave))
            told = learn_labels(asked, ctx.ensure_object(Invocation).environ, lesson, taught)
        job = Job(
            id="train",
            source=FileSource(
                data=None if data is None else str(data),
                taught=None if taught is None else str(taught),
                valid=None if valid is None else str(valid),
                test=None if test is None else str(test),
                text_column=text_column,
                label_column=label_column,
                reading=reading,
            ),
            recipe=msgspec.structs.replace(
                adapted(
                    epochs=epochs or (QUICK_EPOCHS if quick else None),
                    seed=seed,
                    threads=threads,
                    vectors=vectors,
                    max_tokens=max_tokens,
                ),
                teaching=msgspec.UNSET if taught is None else TeachingRecipe(),
            ),
            follow_lengths=max_tokens is None,
            checkpoints=shared or folder,
            out=shared or folder,
            budget=Budget(points=budget, coarse=quick) if budget else None,
            split=splits.current.id,
            accept=accept,
        )
        places = places_of((shared or folder,), "--shared")
        with _progress(console, job) as on_event:
            outcome = _run(ctx, job, splits, ranks, nodes, PrivateFolder(Path(folder)), places, on_event, told=told)
        save(load(places.locate(outcome.uri)), where)
    _report(console, outcome, out, unproven=data is None)


def _run(
    ctx: typer.Context,
    job: Job,
    splits: Splits,
    ranks: int,
    nodes: Nodes | None,
    folder: PrivateFolder,
    places: Places,
    on_event: OnEvent,
    *,
    told: Taught,
) -> Outcome:
    """One rank trains in this process; more are started as processes."""
    from headrace.commands.trainer import allowing
    from headrace.learning.distributed.collectives import Alone
    from headrace.learning.distributed.job import read_outcome
    from headrace.learning.distributed.launch import launch
    from headrace.learning.distributed.rank import run

    if ranks == 1 and nodes is None:

        def tell(event: str, **fields: Any) -> None:
            on_event({"event": event, **fields})

        run(
            job,
            None,
            Alone(),
            tell,
            trusted=(),
            splits=splits,
            places=places,
            resumes=False,
            embed=told.embed,
            reteach=told.reteach,
        )
        outcome = read_outcome(job, places)
        assert outcome is not None  # noqa: S101 - the rank has just written it
        return outcome
    environ = ctx.ensure_object(Invocation).environ
    training = launch(
        job,
        ranks=ranks,
        program=["headrace", "--set", allowing(places)],
        environ=environ,
        folder=folder,
        places=places,
        nodes=nodes,
        on_event=on_event,
    )
    return asyncio.run(training)


def _nodes(
    count: int, number: int, endpoint: str | None, address: str | None, shared: str | None, *, accepted: bool
) -> Nodes | None:
    from headrace.core.errors import UserError
    from headrace.learning.distributed.launch import Nodes

    if count == 1:
        return None
    if endpoint is None or address is None or shared is None:
        raise UserError(
            f"--nnodes {count} needs --rdzv-endpoint HOST:PORT, --address, this machine's own IP address, and --shared,"
            " where all machines see the checkpoints and what comes of them"
        )
    if not accepted:
        raise UserError(
            f"--nnodes {count}: ranks on several machines exchange weights without encryption and without asking who is"
            " there, so whoever reaches their sockets can end the training and change what it learns. Add"
            " --unauthenticated-exchange where only these machines reach each other"
        )
    return Nodes(count=count, number=number, endpoint=endpoint, address=address)


@contextmanager
def _progress(console: Console, job: Job) -> Iterator[OnEvent]:
    """A line for what was read, and a bar for each stage; beside it what the validation rows say and the time left."""
    import time

    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from headrace.learning.resources import Remaining, in_words

    budget, longest = job.budget, job.recipe.convolution.epochs
    remaining = Remaining(longest, compresses=budget is not None, coarse=budget is not None and budget.coarse)
    # A short bar, so that the figures beside it fit 80 columns.
    columns = (TextColumn("{task.description}"), BarColumn(16), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.fields[note]}"), console=console) as progress:
        # Not to be seen before the rows are read: until then something may be wrong with them.
        search = progress.add_task("search", total=longest, start=False, visible=False, note="")
        smaller = progress.add_task("compress", total=None, start=False, visible=False, note="")
        refit = progress.add_task("refit", total=None, start=False, visible=False, note="")

        def on_event(said: Mapping[str, Any]) -> None:
            left = remaining.after(said, time.monotonic())
            after = "" if left is None else f"; {in_words(left)}"
            if line := _line(said):
                console.print(line, style="bold yellow" if line.startswith("WARNING") else None)
            match said["event"]:
                case "training.read":
                    progress.start_task(search)
                    for task in (search, smaller, refit):
                        progress.update(task, visible=True)
                case "training.epoch":
                    note = f"{said['accuracy']:.2%} right{after}"
                    progress.update(search, completed=said["number"], note=note)
                case "training.compressed":
                    _leave(progress, search)
                    progress.start_task(smaller)
                    progress.update(smaller, advance=1, note=f"{said['score']['size'] / 1e3:,.0f} kB{after}")
                case "training.refit":
                    _leave(progress, search)
                    _leave(progress, smaller)
                    progress.start_task(refit)
                    progress.update(refit, completed=said["number"], total=said["total"], note=after.lstrip("; "))
                case "training.done":
                    progress.update(refit, note="")

        yield on_event


def _line(said: Mapping[str, Any]) -> str:
    """What an event says in words; "" for one that a bar shows, or nobody has to know."""
    from headrace.learning.resources import LARGE

    match said["event"]:
        case "training.read":
            dropped = ", ".join(f"{count:,} {why}" for why, count in said["dropped"].items() if count)
            machine = f" and {said['machine_rows']:,} of a teacher" if said["machine_rows"] else ""
            return (
                f"{quantity(said['rows'], 'row')}{machine}, {quantity(said['labels'], 'label')}; "
                f"left out: {dropped or 'none'}"
            )
        case "training.choice":
            rows = f"{said['accuracy']:.1%} of {quantity(said['rows'], 'row')} right"
            return f"machine rows that count {said['weight']:g}, neighbours {said['spread']:g}: {rows}"
        case "training.memory" if said["bytes"] >= LARGE:
            need, free = said["bytes"] / 1e9, said["free_bytes"] / 1e9
            return f"takes about {need:.1f} GB of memory for so many labels; {free:.1f} GB are free"
        case "training.alike":
            names = ", ".join(map(repr, said["names"]))
            return f"WARNING: only capitals or blanks tell these labels apart, and each is a class of its own: {names}"
        case "rank.waits":
            return f"waiting: {said['why']}"
    return ""


def _leave(progress: Progress, stage: TaskID) -> None:
    """End a stage's bar where it is, with what was said of it but for the time that was left."""
    task = progress.tasks[stage]
    progress.update(stage, total=task.completed, note=task.fields["note"].partition(";")[0])


def _report(console: Console, outcome: Outcome, out: str, *, unproven: bool) -> None:
    from headrace.commands.terminal import frame, heading, report_tables, report_warnings
    from headrace.learning.compress.curve import curve_table, curve_title
    from headrace.learning.evaluate import agreement

    if outcome.curve is not None:
        console.print(heading(curve_title(outcome.curve)))
        console.print(curve_table(outcome.curve))
    console.print(heading("Test rows, answered by the compressed artifact as a worker answers them"))
    for table in report_tables(outcome.report):
        console.print(table)
    equal = agreement(outcome.answers, outcome.float_answers)
    console.print(
        f"\nThe original in fp32: accuracy {outcome.float_report.accuracy:.2%}, macro-F1"
        f" {outcome.float_report.macro_f1:.2%}; {equal:.2%} of the answers are the same."
    )
    for line in _of_labels(outcome.lineage):
        console.print(line, markup=False)
    if outcome.lengths is not None:
        console.print(_lengths(outcome.lengths, outcome.longest_us or 0.0))
    # The hash on a line of its own, where no terminal breaks it.
    console.print(f"\n{out}", soft_wrap=True)
    console.print(f"version {outcome.version}, sha256\n{outcome.sha256}")
    console.print(
        f"{outcome.size / 1e3:,.0f} kB ({outcome.float_size / 1e3:,.0f} kB in fp32), "
        f"{quantity(outcome.epochs, 'epoch')}, {outcome.latency_us:.1f} us a text, trained in {outcome.seconds:.0f} s"
    )
    # Last, where a long report has not scrolled it away.
    for warning in report_warnings(outcome.report):
        console.print(warning)
    if unproven:
        console.print(
            frame(
                "UNPROVEN",
                "No person labelled a text, so all figures say how well the version answers as its teacher does, and "
                "not how often both are right. Only an operator promotes it. Label some hundred texts to find out.",
            )
        )


def _of_labels(lineage: Lineage) -> Iterator[str]:
    """Which labels the version can't answer, and for which labels a row was moved within the split."""
    for what, names in (
        ("Not learnt, as no row to learn from is left, and so never answered", lineage.unlearnt),
        ("Of so few rows that one was moved into the test", lineage.borrowed),
        ("Of so few rows that one of the test is learnt", lineage.lent),
    ):
        if names:
            yield f"{what}: {_named(names)}"


def _named(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - LABELS_NAMED:,} more" if len(labels) > LABELS_NAMED else ""
    return f"{', '.join(map(repr, labels[:LABELS_NAMED]))}{more}"


def _lengths(found: Lengths, longest_us: float) -> str:
    """How much of the texts is read, what that costs, and what to do about longer texts."""
    words = quantity(found.max_tokens, "word")
    said = f"It reads {words} of a text; so long a text takes about {longest_us:,.0f} us to answer."
    if not found.truncated:
        return said
    longer = quantity(found.truncated, "is longer and was cut", "are longer and were cut")
    texts, longest = quantity(found.texts, "text"), quantity(found.longest, "word")
    return f"{said} Of {texts} {longer}, the longest has {longest}: --max-tokens reads more of them"
