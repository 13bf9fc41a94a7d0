"""`headrace worker`: answer requests, as one member of the group or as several."""

from __future__ import annotations

import asyncio
import functools
import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.commands.common import NAME, STARTING, Bootstrap, Invocation, admin_port, freeze, settings_from, tracing
from headrace.core.errors import UserError
from headrace.core.fields import METAVAR
from headrace.process.lifecycle import EXIT_SETTINGS

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping
    from concurrent.futures import Executor
    from contextlib import AbstractContextManager

    from headrace.config import Settings
    from headrace.worker.pipeline import Offload
    from headrace.worker.stages.infer import Model
    from headrace.worker.versions import Load
    from headrace_schemas.records import ModelVersion

Text = str | None

DRAINS = 3
"""A process ends at the latest after so many times worker.drain_timeout: past one its stop is broken."""


class ModelNameError(UserError):
    """What should answer can be no alias, no version and no file."""

    exit_code = EXIT_SETTINGS


def worker(
    ctx: typer.Context,
    *,
    bootstrap: Bootstrap = None,
    model: Annotated[
        Text, typer.Option(metavar="URI|ALIAS|VERSION", help="An artifact, an alias to follow, or a version.")
    ] = None,
    requests: Annotated[Text, typer.Option(metavar="TOPIC", help="The topic of the requests.")] = None,
    results: Annotated[Text, typer.Option(metavar="TOPIC", help="The topic of the answers.")] = None,
    group: Annotated[Text, typer.Option(help="The consumer group.")] = None,
    start_from: Annotated[Text, typer.Option("--from", metavar=METAVAR, help="Where a new group begins.")] = None,
    backend: Annotated[
        Text, typer.Option(metavar="cpu|cuda|reference", help="The backend that computes the answers.")
    ] = None,
    processes: Annotated[int, typer.Option(min=1, help="How many workers to run under one parent.")] = 1,
    slot: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Answer requests until SIGTERM or Ctrl-C: fetch, batch, decode, infer, encode, publish, commit."""
    from headrace.process import lifecycle, logs

    options = {
        "--bootstrap": ("kafka.bootstrap", bootstrap),
        "--model": ("worker.model", model),
        "--requests": ("topics.requests", requests),
        "--results": ("topics.results", results),
        "--group": ("worker.group", group),
        "--from": ("worker.start_from", start_from),
        "--backend": ("worker.backend", backend),
    }
    settings = settings_from(ctx, options).settings
    logs.configure(sys.stderr, level=settings.log.level, form=settings.log.format)
    # Loading what computes takes seconds.
    logs.event("worker.starting", bootstrap=settings.kafka.bootstrap)
    # Its parent's patience comes after its own.
    patience = DRAINS * settings.worker.drain_timeout
    if processes > 1 and slot is None:
        from headrace.core.clock import SystemClock
        from headrace.process.admin import ADVICE
        from headrace.process.lifecycle import supervise
        from headrace.process.ports import check_free

        if settings.admin.port:
            ports = [settings.admin.port_of(number) for number in range(processes)]
            check_free(settings.admin.host, ports, who="The admin port", advice=ADVICE)

        def child(number: int) -> list[str]:
            return [sys.executable, "-m", "headrace", *sys.argv[1:], "--slot", str(number)]

        def parent(stop: asyncio.Event) -> Coroutine[Any, Any, int]:
            return supervise(child, processes, stop=stop, clock=SystemClock(), grace_s=patience + 1)

        raise typer.Exit(lifecycle.run(parent, drain_s=patience + 5))
    lifecycle.run(
        functools.partial(_answer, settings, ctx.ensure_object(Invocation).environ, slot or 0), drain_s=patience
    )


async def _answer(settings: Settings, environ: Mapping[str, str], slot: int, stop: asyncio.Event) -> None:
    """The composition root: everything that a worker touches is made here and passed in."""
    import os
    import socket
    import uuid
    from concurrent.futures import ThreadPoolExecutor

    # Threads of BLAS beside our own triple the time of both. It is read when numpy loads.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

    from prometheus_client import CollectorRegistry

    from headrace.core.clock import SystemClock
    from headrace.kafka.aio import AioKafkaCluster, calmed
    from headrace.kafka.dead_letters import keeping
    from headrace.process import lifecycle
    from headrace.worker.metrics import WorkerMetrics
    from headrace.worker.worker import Worker, WorkerTopics

    names = settings.topics.names()
    registry = CollectorRegistry()
    loop = asyncio.get_running_loop()
    with (
        ThreadPoolExecutor(settings.worker.threads, thread_name_prefix="compute") as pool,
        _membership(settings, environ) as member,
        calmed(),
    ):
        running: Worker | None = None
        process = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        async with (
            tracing(settings, "worker", process) as tracer,
            admin_port(settings, registry, lambda: STARTING if running is None else running.unready, slot),
        ):
            # Made only now: a port that is taken leaves nothing behind.
            running = Worker(
                cluster=AioKafkaCluster(settings.kafka),
                topics=WorkerTopics(names.requests, names.results, names.dead_letters, names.models, names.workers),
                settings=settings.worker,
                shape=settings.requests,
                keep=keeping(settings.dead_letters),
                model=_model(settings),
                clock=SystemClock(),
                offload=_offload(loop, pool, carries=tracer.on),
                metrics=WorkerMetrics(registry),
                process=process,
                member=member,
                when_loaded=freeze,
                away_after=settings.kafka.away_after_ms / 1000,
                trusted=settings.signing.trusted,
                tracer=tracer,
            )
            async with lifecycle.ends_when_held(settings.worker.watchdog):
                await running.run(stop)


def _offload(loop: asyncio.AbstractEventLoop, pool: Executor, *, carries: bool) -> Offload:
    """Run functions on ``pool``. If it ``carries``, what they log belongs to the span that is current at the call."""
    from contextvars import copy_context

    if carries:
        return lambda work: loop.run_in_executor(pool, copy_context().run, work)
    return lambda work: loop.run_in_executor(pool, work)


def _model(settings: Settings) -> Model | Load:
    """The artifact at a path or URI, opened for good; for an alias, the function that opens each of its versions."""
    from headrace.process.logs import event
    from headrace.registry.versions import MissingFileError, is_location, load_named
    from headrace.worker.versions import Background, open_model, open_version

    model, backend, trusted = settings.worker.model, settings.worker.backend, settings.signing.trusted
    if is_location(model):
        if trusted:
            why = "a file that worker.model names is the operator's own choice: its signature is not asked for"
            event("model.not_verified", level="warning", uri=model, why=why)
        try:
            artifact = load_named(model)
        except MissingFileError as error:
            raise ModelNameError(f"worker.model: {error}") from error
        return open_model(artifact, backend, artifact.version)
    if not NAME.fullmatch(model):
        raise ModelNameError(
            f"worker.model is {model!r}, and there is no file of that name. An alias or a version has letters, digits, "
            "'_' and '-' alone; `headrace models list` shows those that there are."
        )
    if backend == "cuda":
        from headrace.model.backends.cuda import find_device

        # Said now, not when the first version comes: it can't be mended by trying again.
        find_device()
    background, places = Background(), settings.places()

    async def open_beside(record: ModelVersion) -> Model:
        return await background.run(record.version, lambda: open_version(record, backend, trusted, places))

    return open_beside


def _membership(settings: Settings, environ: Mapping[str, str]) -> AbstractContextManager[str | None]:
    import socket

    from headrace.kafka.static_membership import machine, static_member
    from headrace.process.logs import event
    from headrace.security.private_folder import NoFolderError, private_folder

    if not settings.kafka.static_members:
        return nullcontext()
    try:
        folder = private_folder(environ)
        with folder.descriptor():
            pass
    except NoFolderError as error:
        # A read-only container: it answers as well, and the group shares out anew when it is started again.
        event("member.dynamic", level="warning", why=f"its number can be kept nowhere: {error}")
        return nullcontext()
    return static_member(
        folder,
        host=socket.gethostname(),
        machine=machine(),
        cluster=settings.kafka.bootstrap,
        group=settings.worker.group,
    )
