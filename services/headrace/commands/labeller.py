"""`headrace labeller`: the service that asks a teacher about texts which the answers leave in doubt."""

from __future__ import annotations

import asyncio
import functools
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.commands.common import Bootstrap, Invocation, admin_port, cluster_of, settings_from, tracing
from headrace.commands.teach import (
    TEACHER_HELP,
    LabelsFile,
    MayLeave,
    Model,
    described,
    leaving,
    open_named,
    teacher_options,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headrace.config import Settings
    from headrace.labeller.teachers.interface import Teacher, TeacherName
    from headrace.learning.data.split import Split

STARTING = "the teacher is made ready"
STOP_S = 30.0


def labeller(
    ctx: typer.Context,
    *,
    teacher: Annotated[
        str | None, typer.Option(metavar="TEACHER", help=f"{TEACHER_HELP} Short for labeller.teacher.")
    ] = None,
    labels: LabelsFile = None,
    model: Model = None,
    may_leave: MayLeave = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Start again after low agreement on gold texts stopped a labeller.")
    ] = False,
    bootstrap: Bootstrap = None,
) -> None:
    """Label texts of the requests by a teacher until SIGTERM or Ctrl-C, beside the answers and never in their way.

    Of several labellers of a group one asks. What it may spend is bounded by labeller.day_texts and the other budgets.
    """
    import msgspec

    from headrace.labeller.teachers.interface import Kind, parse_teacher
    from headrace.labeller.teachers.privacy import Source, check_leaving
    from headrace.process import lifecycle, logs

    options = {
        "--bootstrap": ("kafka.bootstrap", bootstrap),
        "--teacher": ("labeller.teacher", teacher),
        **teacher_options(labels, model),
    }
    settings = settings_from(ctx, options).settings
    logs.configure(sys.stderr, level=settings.log.level, form=settings.log.format)
    settings = msgspec.structs.replace(settings, teacher=leaving(settings.teacher, may_leave))
    name = parse_teacher(settings.labeller.teacher)
    if name.kind is Kind.ENDPOINT:
        topics = settings.topics.names()
        # Gold texts leave too, with what people said of them kept here.
        for topic in (topics.requests, *((topics.labels,) if settings.labeller.gold else ())):
            check_leaving(Source("text", topic), settings.teacher.may_leave, name.target or "")
    logs.event("labeller.starting", bootstrap=settings.kafka.bootstrap, teacher=str(name))
    environ = ctx.ensure_object(Invocation).environ
    lifecycle.run(functools.partial(_label, settings, name, environ, resume), drain_s=STOP_S)


async def _label(
    settings: Settings, name: TeacherName, environ: Mapping[str, str], resume: bool, stop: asyncio.Event
) -> None:
    """The composition root: everything that a labeller touches is made here and passed in."""
    import os
    import random
    import socket
    import uuid

    from prometheus_client import CollectorRegistry

    from headrace.core.clock import SystemClock
    from headrace.kafka.aio import calmed
    from headrace.labeller.labeller import Labeller
    from headrace.labeller.metrics import LabellerMetrics
    from headrace.labeller.term import LabellerTopics
    from headrace_schemas.paths import compile_shape

    names = settings.topics.names()
    registry = CollectorRegistry()
    with calmed():
        running: Labeller | None = None
        process = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        async with (
            tracing(settings, "labeller", process) as tracer,
            admin_port(settings, registry, lambda: STARTING if running is None else running.unready),
        ):
            teacher = await _open(settings, name, environ)
            try:
                running = Labeller(
                    cluster=cluster_of(settings),
                    topics=LabellerTopics(
                        names.requests,
                        names.results,
                        names.labels,
                        names.machine_labels,
                        names.reviews,
                        names.teaching,
                        names.models,
                    ),
                    model=settings.worker.model_name,
                    settings=settings.labeller,
                    teacher=teacher,
                    decode=compile_shape(settings.requests),
                    max_text_bytes=settings.requests.max_text_bytes,
                    process=process,
                    clock=SystemClock(),
                    randomness=random.Random(),  # noqa: S311 - which gold text is asked about next is no secret
                    metrics=LabellerMetrics(registry),
                    resume=resume,
                    away_after=settings.kafka.away_after_ms / 1000,
                    tracer=tracer,
                )
                await running.run(stop)
            finally:
                await teacher.close()


async def _open(settings: Settings, name: TeacherName, environ: Mapping[str, str]) -> Teacher:
    """Open the teacher on a thread; an encoder that is no saved one learns from what people labelled on the topic."""
    from headrace.labeller.teachers.interface import silent
    from headrace.process.logs import event

    rows = await _rows(settings)
    teacher = await asyncio.to_thread(open_named, name, settings, environ, rows, silent)
    if said := described(teacher):
        event("teacher.ready", teacher=teacher.identity.version, evidence=said)
    return teacher


async def _rows(settings: Settings) -> Split | None:
    """The labels of the topic, divided as a training divides them; None where there are none."""
    from headrace.learning.data.files import Rows
    from headrace.learning.data.random_slice import read_label_records
    from headrace.learning.data.split import Splits, split
    from headrace.learning.data.validation import clean

    topic = settings.topics.names().labels
    found = await read_label_records(cluster_of(settings), topic, settings.requests.max_text_bytes)
    if not found:
        return None
    rows = Rows(tuple(label.text for _, _, label in found), tuple(label.label for _, _, label in found))
    splitting = Splits(settings.trainer.split_key, settings.trainer.previous_split_key).current
    return split(clean(rows), splitting=splitting, folds=True)
