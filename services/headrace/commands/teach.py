"""`headrace teach`: a teacher labels texts to learn from."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import msgspec
import typer

from headrace.commands.common import Bootstrap, Delimiter, Encoding, Invocation, begin, cluster_of, remark, say
from headrace.core.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from headrace.config import Settings
    from headrace.files.table import Reading
    from headrace.labeller.teachers.endpoint import EndpointTeacher
    from headrace.labeller.teachers.interface import Spent, Teacher, TeacherName, Tell
    from headrace.labeller.teachers.settings import TeacherSettings
    from headrace.labeller.teaching import Asked, Bounds, Course
    from headrace.learning.data.files import Rows
    from headrace.learning.data.split import Part, Split, Splitting
    from headrace.learning.data.vocabulary import Embed
    from headrace.learning.fit.teaching import Reteach

TEACHER_HELP = "encoder, encoder:PATH_OR_NAME, endpoint:URL or program:COMMAND."
LABELS_HELP = "The labels in words, a TOML file; short for teacher.labels."
MODEL_HELP = "The model to ask an endpoint for; short for teacher.model."
MAY_LEAVE_HELP = "What an endpoint may be sent: a column, or TOPIC:text. May be repeated."

MayLeave = Annotated[list[str] | None, typer.Option("--may-leave", metavar="NAME", help=MAY_LEAVE_HELP)]
LabelsFile = Annotated[Path | None, typer.Option("--labels", metavar="FILE", help=LABELS_HELP)]
Model = Annotated[str | None, typer.Option("--model", metavar="NAME", help=MODEL_HELP)]


class ChoiceError(UserError):
    """Options that don't go together."""

    exit_code = 2


def teach(
    ctx: typer.Context,
    file: Annotated[Path | None, typer.Argument(metavar="FILE", help="Texts: a text a line, JSON, CSV.")] = None,
    *,
    teacher: Annotated[str, typer.Option(metavar="TEACHER", help=TEACHER_HELP)] = "encoder",
    requests: Annotated[
        bool, typer.Option("--requests", help="Take the texts of the requests topic instead of a file.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Write the labels there, or continue the file."),
    ] = None,
    publish: Annotated[
        bool, typer.Option("--publish", help="Publish the labels to the topic of machine labels.")
    ] = False,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="FILE", help="Rows that people labelled, for an encoder.")
    ] = None,
    save: Annotated[
        Path | None, typer.Option("--save", metavar="FILE", help="Save the fitted encoder, for use as encoder:FILE.")
    ] = None,
    labels: LabelsFile = None,
    model: Model = None,
    may_leave: MayLeave = None,
    text_column: Annotated[str, typer.Option(help="The column of the texts.")] = "text",
    label_column: Annotated[str, typer.Option(help="The column of the labels of --data.")] = "label",
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    limit: Annotated[int | None, typer.Option(min=1, help="The most texts to ask about.")] = None,
    budget: Annotated[float | None, typer.Option(min=0, help="The most money to spend, by the set prices.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print exactly what would be sent to an endpoint; send nothing.")
    ] = False,
    bootstrap: Bootstrap = None,
) -> None:
    """Let a teacher label texts: an encoder, a language model behind an address, or a program.

    It asks about no text that this teacher has labelled in the output, so the same command goes on where it stopped.
    """
    from headrace.files.table import Reading
    from headrace.labeller.teachers.interface import Kind, parse_teacher
    from headrace.labeller.teachers.privacy import Source, check_leaving
    from headrace.labeller.teaching import Bounds

    name = parse_teacher(teacher)
    if (file is None) is not requests:
        raise ChoiceError("Name a file of texts, or --requests for those of the requests topic, and not both.")
    if not dry_run and (out is None) is not publish:
        raise ChoiceError("Name where the labels go: --out FILE, or --publish for the topic, and not both.")
    settings = begin(ctx, bootstrap, teacher_options(labels, model))
    settings = msgspec.structs.replace(settings, teacher=leaving(settings.teacher, may_leave))
    if budget is not None and name.kind is Kind.ENDPOINT and not settings.teacher.price_input:
        raise ChoiceError(
            "--budget needs to know what a million tokens cost: set teacher.price_input and teacher.price_output."
        )
    topic = settings.topics.names().requests if requests else None
    reading = Reading(delimiter, encoding)
    bounds = Bounds(limit, budget)
    texts = _requests(settings) if file is None else _of_file(file, text_column, reading)
    environ = ctx.ensure_object(Invocation).environ
    if dry_run:
        asyncio.run(_show(name, settings, texts, bounds))
        return
    if name.kind is Kind.ENDPOINT:
        source = Source("text" if topic else text_column, topic)
        check_leaving(source, settings.teacher.may_leave, name.target or "")
    lesson = Lesson(teacher=name, data=data, text_column=text_column, label_column=label_column, reading=reading)
    human = read_human(settings, lesson)
    with _work() as tell:
        opened = open_named(name, settings, environ, human and human.split, tell)
    if said := described(opened):
        remark(said)
    if save is not None:
        _save(opened, save)
    course = asyncio.run(_taught(settings, opened, texts, out, bounds))
    _report(course, opened, str(out) if out is not None else settings.topics.names().machine_labels)


def teacher_options(labels: Path | None, model: str | None) -> dict[str, tuple[str, str | int | float | None]]:
    """The settings that --labels and --model stand for."""
    return {
        "--labels": ("teacher.labels", None if labels is None else str(labels)),
        "--model": ("teacher.model", model),
    }


def leaving(settings: TeacherSettings, may_leave: Sequence[str] | None) -> TeacherSettings:
    """``settings`` with what --may-leave names too."""
    return msgspec.structs.replace(settings, may_leave=(*settings.may_leave, *(may_leave or ())))


class Lesson(msgspec.Struct, frozen=True, kw_only=True):
    """Which teacher labels the texts of which file, and the files of people's labels, as `train` gets them."""

    teacher: TeacherName
    unlabelled: Path | None = None
    data: Path | None = None
    valid: Path | None = None
    test: Path | None = None
    text_column: str = "text"
    label_column: str = "label"
    reading: Reading


class Human(NamedTuple):
    """People's labels: the rows as a training divides them, the keys of all texts, and the parts that are files of
    their own.
    """

    split: Split
    keys: frozenset[bytes]
    own: frozenset[Part]


def splitting_of(settings: Settings) -> Splitting:
    """How a training that begins now divides texts."""
    from headrace.learning.data.split import Splits

    return Splits(settings.trainer.split_key, settings.trainer.previous_split_key).current


def read_human(settings: Settings, lesson: Lesson) -> Human | None:
    """The rows of people, divided as by a training, so that a teacher sees no test row; None where there are none."""
    from headrace.learning.data.files import read_rows
    from headrace.learning.data.split import Part, split
    from headrace.learning.data.validation import clean, text_keys

    def rows_of(file: Path) -> Rows:
        return read_rows(file, text_column=lesson.text_column, label_column=lesson.label_column, reading=lesson.reading)

    if lesson.data is None:
        return None
    splitting = splitting_of(settings)
    data = rows_of(lesson.data)
    valid = None if lesson.valid is None else rows_of(lesson.valid)
    test = None if lesson.test is None else rows_of(lesson.test)
    divided = split(
        clean(data), valid=None if valid is None else clean(valid), test=test, splitting=splitting, folds=True
    )
    texts = [text for rows in (data, valid, test) if rows is not None for text in rows.texts]
    own = {part for part, rows in ((Part.VALID, valid), (Part.TEST, test)) if rows is not None}
    return Human(divided, frozenset(text_keys(texts, splitting.hashing)), frozenset(own))


def check_sources(
    data: Path | None,
    valid: Path | None,
    test: Path | None,
    unlabelled: Path | None,
    teacher: str | None,
    taught: Path | None,
    nodes: int,
) -> None:
    """Raise ChoiceError if no training can be made of these files."""
    if data is None and unlabelled is None and taught is None:
        raise ChoiceError("Name a file of labelled texts, or texts for a teacher by --unlabelled, or both.")
    if data is None and not (valid is None and test is None):
        raise ChoiceError("--valid and --test go with a file of labelled texts.")
    if teacher is not None and unlabelled is None:
        raise ChoiceError("--teacher labels the texts of --unlabelled: name the file.")
    if nodes > 1 and unlabelled is not None:
        raise ChoiceError(
            "--unlabelled with --nnodes: every machine would ask the teacher. Label the texts once by `headrace teach`,"
            " and give all machines the file by --taught."
        )


class Taught(NamedTuple):
    """What a training may ask of a local encoder: embeddings of texts, and to be fitted again without some rows."""

    embed: Embed | None = None
    reteach: Reteach | None = None


def learn_labels(settings: Settings, environ: Mapping[str, str], lesson: Lesson, taught: Path) -> Taught:
    """Let the teacher of ``lesson`` label its texts into the file ``taught``, without those that can't train.

    Raises TeacherError.
    """
    import numpy as np

    from headrace.labeller.teachers.encoder import EncoderTeacher
    from headrace.labeller.teachers.interface import Kind
    from headrace.labeller.teachers.privacy import Source, check_leaving
    from headrace.labeller.teaching import Asked, Bounds, each
    from headrace.learning.data.taught import admit, read_taught
    from headrace.learning.data.validation import text_keys

    assert lesson.unlabelled is not None  # noqa: S101 - the caller has looked
    name, splitting = lesson.teacher, splitting_of(settings)
    if name.kind is Kind.ENDPOINT:
        check_leaving(Source(lesson.text_column), settings.teacher.may_leave, name.target or "")
    human = read_human(settings, lesson)
    texts = list(rows_of_texts(lesson.unlabelled, lesson.text_column, lesson.reading))
    keys = text_keys(texts, splitting.hashing)

    def judging_of(given: Sequence[str]) -> NDArray[np.bool_]:
        found = text_keys(given, splitting.hashing)
        return np.zeros(len(found), np.bool_) if human is None else splitting.judges(found, human.own)

    # A text that the training would leave out is not asked about, so it costs nothing.
    admitted = admit(keys, judging_of(texts), frozenset() if human is None else human.keys)
    with _work() as tell:
        opened = open_named(name, settings, environ, human and human.split, tell, remembers=True)
    if said := described(opened):
        remark(said)
    asked = each(Asked(texts[place], lesson.unlabelled.name) for place in admitted.places)
    course = asyncio.run(_taught(settings, opened, asked, taught, Bounds(), len(admitted.places)))
    _report(course, opened, f"{taught.name}, to train on")
    if not isinstance(opened, EncoderTeacher):
        return Taught()
    if human is None or not opened.evidence.crossed:
        return Taught(opened.embed)
    # As the training reads them, by the same rules.
    labelled = read_taught(taught)
    places = admit(text_keys(labelled.texts, splitting.hashing), judging_of(labelled.texts), human.keys).places
    left = labelled.take(places)
    labels = sorted({*human.split.train.labels, *human.split.valid.labels, *left.classes})
    return Taught(opened.embed, lambda known: opened.without(known, left.texts, labels))


def open_named(
    name: TeacherName,
    settings: Settings,
    environ: Mapping[str, str],
    rows: Split | None,
    tell: Tell,
    *,
    remembers: bool = False,
) -> Teacher:
    """Open a teacher, with the rows of people where there are some."""
    from headrace.labeller.teachers.opening import NO_ROWS, open_teacher

    train, valid = (NO_ROWS, NO_ROWS) if rows is None else (rows.train, rows.valid)
    return open_teacher(
        name,
        settings.teacher,
        environ=environ,
        train=train,
        valid=valid,
        splitting=splitting_of(settings),
        tell=tell,
        remembers=remembers,
    )


def described(teacher: Teacher) -> str:
    """How well an encoder teaches, as far as it was measured; "" for other teachers."""
    evidence = getattr(teacher, "evidence", None)
    if evidence is None:
        return ""
    how = "in turn left out" if evidence.crossed else "of validation"
    tuned = "" if evidence.tuned is None else f"; with its own weights trained on {evidence.tuned:.1%}"
    return (
        f"teacher {teacher.identity.version}: right on {evidence.frozen:.1%} of {evidence.rows:,} rows {how}{tuned};"
        f" learnt from {evidence.learnt:,}"
    )


async def _requests(settings: Settings) -> AsyncIterator[Asked]:
    from headrace.kafka.range_reader import read_topic
    from headrace.labeller.teaching import Asked
    from headrace_schemas.errors import WireError
    from headrace_schemas.headers import content_type
    from headrace_schemas.paths import compile_shape

    decode = compile_shape(settings.requests)
    topic = settings.topics.names().requests
    async for record in read_topic(cluster_of(settings), topic, "texts"):
        try:
            text = decode(record.value, content_type(record.headers)).text
        except WireError:
            # A worker dead-letters it, and says why.
            continue
        yield Asked(text, f"{topic}/{record.partition}@{record.offset}")


async def _of_file(file: Path, column: str, reading: Reading) -> AsyncIterator[Asked]:
    from headrace.labeller.teaching import Asked

    for row in rows_of_texts(file, column, reading):
        yield Asked(row, file.name)


def rows_of_texts(file: Path, column: str, reading: Reading) -> Iterator[str]:
    """The texts of a file: its lines, or the column of a table. Raises DatasetError."""
    from headrace.files.table import Kind, find_kind, read_file

    kind = find_kind(file) or Kind.TEXT
    for row in read_file(file, (column,), kind=kind, reading=reading, tell=remark):
        yield row.string(column)


async def _taught(
    settings: Settings,
    teacher: Teacher,
    texts: AsyncIterator[Asked],
    out: Path | None,
    bounds: Bounds,
    total: int | None = None,
) -> Course:
    from headrace.labeller.teaching import FilePlace, Place, TopicPlace
    from headrace.labeller.teaching import teach as run

    place: Place
    if out is not None:
        place = FilePlace(out, teacher.identity.version)
    else:
        cluster = cluster_of(settings)
        topic = settings.topics.names().machine_labels
        place = TopicPlace(cluster, topic, teacher.identity, lambda: time.time_ns() // 1_000_000)
        await place.open(cluster)
    if place.known:
        remark(f"{len(place.known):,} texts have labels there already")
    try:
        with _course(total or bounds.texts) as tell:
            return await run(texts, teacher, place, bounds, tell)
    finally:
        await teacher.close()
        await place.close()


@contextmanager
def _work() -> Iterator[Tell]:
    """A progress bar for each step of making a teacher ready, with the remaining time."""
    import sys

    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    from headrace.commands.terminal import Terminal

    columns = (TextColumn("{task.description:<10}"), BarColumn(24), MofNCompleteColumn(), TimeRemainingColumn())
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=Terminal(file=sys.stderr)) as progress:

        def tell(work: str, done: int, total: int) -> None:
            if work not in tasks:
                tasks[work] = progress.add_task(work, total=total)
            progress.update(tasks[work], completed=done, total=total)

        yield tell


@contextmanager
def _course(total: int | None) -> Iterator[Callable[[Course], None]]:
    """A progress bar of the texts that were asked about, with the money spent."""
    import sys

    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from headrace.commands.terminal import Terminal

    columns = (TextColumn("labelling"), BarColumn(24), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[note]}"), console=Terminal(file=sys.stderr)) as progress:
        task = progress.add_task("labelling", total=total, note="")

        def tell(course: Course) -> None:
            note = f"spent {course.spent.cost:.4f}" if course.spent.cost else ""
            failed = course.failed.total()
            progress.update(task, completed=course.asked, note=f"{note} {failed:,} failed" if failed else note)

        yield tell


async def _show(name: TeacherName, settings: Settings, texts: AsyncIterator[Asked], bounds: Bounds) -> None:
    """Print what would be sent. Nothing is opened but the prompt."""
    from headrace.labeller.teachers.interface import Kind, Spent
    from headrace.labeller.teachers.opening import NO_ROWS, labels_of

    if name.kind is not Kind.ENDPOINT:
        say(f"Nothing would leave this machine: {name.kind} labels texts here.")
        return
    from headrace.labeller.teachers.endpoint import EndpointTeacher

    teacher: EndpointTeacher = EndpointTeacher(name, labels_of(name, settings.teacher, NO_ROWS), settings.teacher)
    count, spent, waiting = 0, Spent(), list[str]()
    async for one in texts:
        if bounds.texts is not None and count == bounds.texts:
            break
        if one.text.strip():
            count += 1
            waiting.append(one.text)
        if len(waiting) == settings.teacher.texts_a_call:
            spent += _show_bodies(teacher, waiting)
            waiting = []
    spent += _show_bodies(teacher, waiting)
    money = f", and would cost at most about {spent.cost:.4f}" if settings.teacher.price_input else ""
    remark(
        f"Nothing was sent. These are the bodies of {spent.calls:,} calls about {count:,} texts to {name.target}, a"
        f" line each; beside them goes the key. They have at most about {spent.input_tokens:,} tokens{money}."
    )


def _show_bodies(teacher: EndpointTeacher, texts: Sequence[str]) -> Spent:
    for body in teacher.bodies(texts):
        say(msgspec.json.encode(body).decode())
    return teacher.within(texts)


def _save(teacher: Teacher, file: Path) -> None:
    from headrace.files.output import check_output
    from headrace.labeller.teachers.encoder import EncoderTeacher

    if not isinstance(teacher, EncoderTeacher):
        raise ChoiceError("--save keeps an encoder that was fitted, and this teacher is none.")
    check_output(file, force=True)
    teacher.save(file)


def _report(course: Course, teacher: Teacher, where: str) -> None:
    parts = [f"labelled {course.labelled:,} texts by {teacher.identity.version} into {where}"]
    if course.known:
        parts.append(f"{course.known:,} were known or came again")
    if course.empty:
        parts.append(f"{course.empty:,} were empty")
    if course.spent.cost:
        parts.append(f"spent {course.spent.cost:.4f}")
    say("; ".join(parts))
    if course.failed:
        reasons = ", ".join(f"{count:,} {code}" for code, count in course.failed.most_common())
        say(f"failed, and asked again by the same command: {reasons}")
    if course.ended:
        say(f"ended early: {course.ended}")
