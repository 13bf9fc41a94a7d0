"""From a teacher's name to the teacher: what each kind needs, and what is said when it is missing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from headrace.labeller.teachers.encoder import EncoderTeacher, Tune, fit_teacher, load_teacher, open_encoder
from headrace.labeller.teachers.interface import Kind, Teacher, TeacherError, TeacherName, Tell, silent
from headrace.labeller.teachers.labels_file import Labels, bare_labels, read_labels
from headrace.labeller.teachers.settings import TeacherSettings
from headrace.learning.data.files import Rows
from headrace.learning.data.split import UNKEYED, Splitting

NO_ROWS = Rows((), ())


def open_teacher(
    name: TeacherName,
    settings: TeacherSettings,
    *,
    environ: Mapping[str, str],
    train: Rows = NO_ROWS,
    valid: Rows = NO_ROWS,
    splitting: Splitting = UNKEYED,
    tell: Tell = silent,
    remembers: bool = False,
) -> Teacher:
    """Open a teacher. An encoder that is no saved teacher is fitted to ``train`` and chosen on ``valid``, clean rows of
    people; one that ``remembers`` keeps the vectors of its texts. The others take their labels from teacher.labels, or
    the bare names from the rows.

    Blocks. Raises TeacherError, which says what is missing.
    """
    if name.kind is Kind.ENCODER:
        return _encoder(name.target, settings, train, valid, splitting, tell, remembers=remembers)
    labels = labels_of(name, settings, train + valid)
    if name.kind is Kind.PROGRAM:
        from headrace.labeller.teachers.program import ProgramTeacher  # noqa: PLC0415 - only what is asked for

        return ProgramTeacher(name, labels.names, settings, environ)
    from headrace.labeller.teachers.endpoint import EndpointTeacher  # noqa: PLC0415 - part of an extra

    return EndpointTeacher(name, labels, settings)


def labels_of(name: TeacherName, settings: TeacherSettings, rows: Rows) -> Labels:
    """The labels that a teacher may give. Raises TeacherError where nothing names two of them."""
    if settings.labels is not None:
        return read_labels(Path(settings.labels))
    names = sorted(set(rows.labels))
    if len(names) < 2:
        raise TeacherError(
            f"{name.kind}: nothing says which labels there are. Name them in a file, by teacher.labels (--labels"
            " labels.toml; docs/teaching.md), or give rows that people labelled."
        )
    return bare_labels(names)


def _encoder(
    target: str | None,
    settings: TeacherSettings,
    train: Rows,
    valid: Rows,
    splitting: Splitting,
    tell: Tell,
    *,
    remembers: bool,
) -> EncoderTeacher:
    if target is not None and (file := Path(target).expanduser()).is_file():
        return load_teacher(file, threads=settings.threads, remembers=remembers)
    if not len(train) + len(valid):
        raise TeacherError(
            f"encoder{'' if target is None else f':{target}'} learns from rows that people labelled; there are none."
            " Give some (--data), or name a teacher that was saved (encoder:FILE)."
        )
    encoder = open_encoder(target, max_tokens=settings.max_tokens)
    if remembers:
        encoder.remember()
    return fit_teacher(
        encoder,
        train,
        valid,
        named=target,
        tune=Tune(settings.tune),
        splitting=splitting,
        seed=settings.seed,
        threads=settings.threads,
        tell=tell,
    )
