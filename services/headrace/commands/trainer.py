"""`headrace trainer`: turn labels into versions, as the leader or standing by; `headrace rank`: one process of a
training, started by the command or trainer that trains and by nobody else.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import sys
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from headrace.commands.common import STARTING, Bootstrap, Invocation, admin_port, cluster_of, say, settings_from

if TYPE_CHECKING:
    from collections.abc import Mapping

    import typer

    from headrace.model.places import Places
    from headrace.trainer.settings import TrainerSettings
    from headrace.trainer.training_run import Launch

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

    from headrace.config import Settings
    from headrace.kafka.interface import Cluster
    from headrace.learning.data.random_slice import Ask
    from headrace.model.signing import Seals
    from headrace.trainer.certificate import OpenVersion
    from headrace.trainer.store import TrainingStore
    from headrace.trainer.training_run import Decide, Launch, Offload
    from headrace_schemas.records import ModelVersion, Training


def rank(ctx: typer.Context) -> None:
    """Take part in a training. The standard input holds the job, and how to meet the other ranks."""
    import msgspec

    from headrace.core.errors import UserError, frames_of, words_of
    from headrace.files.table import Reading
    from headrace.kafka.interface import KafkaError
    from headrace.process import logs
    from headrace.security.private_folder import keep_what_matplotlib_caches

    keep_what_matplotlib_caches(os.environ)
    from headrace.learning.data.split import Splits
    from headrace.learning.distributed.job import TopicSource
    from headrace.learning.distributed.rank import run
    from headrace.learning.distributed.rendezvous import RANK_FAILED, Assignment, join

    settings = settings_from(ctx).settings
    logs.configure(sys.stderr, level=settings.log.level, form="json")
    try:
        told = msgspec.json.decode(sys.stdin.buffer.read(), type=Assignment)
    except msgspec.DecodeError as error:
        raise typer.BadParameter(
            f"the standard input holds no assignment of a rank ({error}). Ranks are started by `headrace train --ranks`"
            " and `headrace trainer`."
        ) from error
    cluster = cluster_of(settings) if isinstance(told.job.source, TopicSource) else None
    try:
        exchange = join(told)
        logs.event("rank.started", rank=exchange.rank, world=exchange.world, pid=os.getpid())
        run(
            told.job,
            cluster,
            exchange,
            trusted=settings.signing.trusted,
            splits=Splits(settings.trainer.split_key, settings.trainer.previous_split_key),
            places=settings.places(),
            holdout=settings.gate.holdout,
            holdout_reading=Reading(settings.gate.holdout_delimiter, settings.gate.holdout_encoding),
        )
    except (UserError, KafkaError) as error:
        lasting = not (isinstance(error, KafkaError) and error.retriable)
        logs.event(RANK_FAILED, level="error", error=str(error), lasting=lasting)
        raise typer.Exit(1) from error
    except Exception as error:
        # What a restart may mend: most often another rank has died, and the exchange with it.
        # The trainer puts the reason into a record and logs the rest, so neither has the words of others.
        logs.event(RANK_FAILED, level="error", error=words_of(error), lasting=False, traceback=frames_of(error))
        raise typer.Exit(1) from error
    # All is written and every rank knows it. What gloo's threads do at a usual end aborts the process now and then,
    # which would count as a death, and all would be trained again.
    logging.shutdown()
    os._exit(0)


# Of an event that a rank logs: what the log of this process adds itself.
_OUR_OWN = ("time", "level", "event")


def launcher(
    ctx: typer.Context, bootstrap: str | None, settings: TrainerSettings, places: Places, node: int = 0
) -> Launch:
    """What starts the ranks of a job on machine ``node``. Their events go to this log too.

    ``bootstrap`` is the command's own option. ``places`` are those where the files of the training may lie.
    """
    from headrace.learning.distributed.job import Job, Outcome
    from headrace.learning.distributed.launch import Nodes, launch
    from headrace.security.private_folder import private_folder

    given = ctx.ensure_object(Invocation)
    program = ["headrace"]
    if given.file is not None:
        program += ["--config", str(given.file)]
    for assignment in given.sets:
        program += ["--set", assignment]
    if (address := bootstrap or given.bootstrap) is not None:
        program += ["--bootstrap", address]
    if given.log_level is not None:
        program += ["--log-level", given.log_level]
    # The command's own options, such as --store, are in them too.
    program += ["--set", allowing(places)]
    folder = private_folder(given.environ).folder("trainings")
    with folder.descriptor():
        pass  # said now, and not when the first training begins

    nodes = None
    if settings.nodes > 1 and settings.rendezvous is not None and settings.address is not None:
        nodes = Nodes(count=settings.nodes, number=node, endpoint=settings.rendezvous, address=settings.address)

    async def start(job: Job) -> Outcome:
        return await launch(
            job,
            ranks=settings.ranks,
            program=program,
            environ=given.environ,
            folder=folder,
            places=places,
            nodes=nodes,
            restarts=settings.max_restarts,
            on_event=_relay,
        )

    return start


def allowing(places: Places) -> str:
    """What gives ``places`` to a rank, for its option ``--set``."""
    return f"store.allowed={','.join(place.uri for place in places.allowed)}"


def _relay(said: Mapping[str, Any]) -> None:
    from headrace.process.logs import event

    fields = {name: value for name, value in said.items() if name not in _OUR_OWN}
    if "exception" in fields:
        fields["traceback"] = fields.pop("exception")
    event(said["event"], level=said.get("level", "info"), **fields)


T = TypeVar("T")
Text = str | None

STOP_S = 30.0
UNKEYED_WARNING = (
    "trainer.split_key is not set, so everybody can compute which texts the gate decides by, and whoever writes labels "
    "can choose them. `openssl rand -hex 32 > split.key` makes a key for trainer.split_key_file"
)


def trainer(
    ctx: typer.Context,
    *,
    bootstrap: Bootstrap = None,
    store: Annotated[Text, typer.Option(metavar="URI", help="Where artifacts and checkpoints go.")] = None,
    ranks: Annotated[int | None, typer.Option(min=1, help="Processes of a training.")] = None,
    once: Annotated[bool, typer.Option("--once", help="Train now, if there are labels, and end.")] = False,
    node: Annotated[
        int, typer.Option(min=0, metavar="NUMBER", help="From 1 on: only run ranks, as this machine of trainer.nodes.")
    ] = 0,
) -> None:
    """Train until SIGTERM or Ctrl-C: read labels, begin a training when a rule says so, let the gate decide, publish.

    Of several trainers one leads and the others stand by. Whoever leads next goes on with an interrupted training,
    from its last checkpoint.
    """
    import os

    # Threads of BLAS beside the ranks take the cores that they use. It is read when numpy loads.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

    from headrace.core.errors import UserError
    from headrace.process import lifecycle, logs
    from headrace_schemas.records import TrainingState

    options = {
        "--bootstrap": ("kafka.bootstrap", bootstrap),
        "--store": ("trainer.store", store),
        "--ranks": ("trainer.ranks", ranks),
    }
    settings = settings_from(ctx, options).settings
    logs.configure(sys.stderr, level=settings.log.level, form=settings.log.format)
    if node >= settings.trainer.nodes:
        raise typer.BadParameter(
            f"trainer.nodes is {settings.trainer.nodes}, so machines are 0 to {settings.trainer.nodes - 1}."
        )
    # Loading what computes takes seconds.
    logs.event("trainer.starting", bootstrap=settings.kafka.bootstrap)
    from headrace.learning.data.vectors import check_vectors
    from headrace.model.signing import seals

    # All that can be looked at, before anything is connected: the first training may be days away.
    kept = _store(settings, seals(settings.signing.key_file, settings.signing.trusted))
    check_vectors(settings.trainer.vectors)
    launch = launcher(ctx, bootstrap, settings.trainer, settings.places(), node)
    if node:
        lifecycle.run(functools.partial(_help, settings, kept, launch), drain_s=STOP_S)
        return
    _check_holdout(settings)
    ended = lifecycle.run(functools.partial(_train, settings, kept, launch, once), drain_s=STOP_S)
    if ended is None:
        return
    if ended.state is TrainingState.FAILED:
        raise UserError(f"Training {ended.id} failed: {ended.error}")
    say(f"{ended.name}: trained {ended.version}")


def _store(settings: Settings, own: Seals) -> TrainingStore:
    """The trainer's store, which can be written to. Raises OutputError, and StoreError where it does not answer."""
    from headrace.files.output import OutputError
    from headrace.model.errors import StoreError
    from headrace.trainer.store import TrainingStore

    try:
        store = TrainingStore(settings.trainer.store, settings.worker.model_name, settings.places(), own)
    except StoreError as error:
        raise OutputError(f"trainer.store: {error}") from error
    store.check()
    return store


def _check_holdout(settings: Settings) -> None:
    """Look at the file of the holdout; a topic is not looked at. Raises InputError, and StoreError."""
    from pathlib import Path

    from headrace.core.gate import HOLDOUT_TOPIC
    from headrace.files import DatasetError, InputError
    from headrace.files.table import Reading, read_file
    from headrace.model import store
    from headrace.model.places import as_told

    gate = settings.gate
    if gate.holdout is None or gate.holdout.startswith(HOLDOUT_TOPIC):
        return
    if "://" not in gate.holdout:
        reading = Reading(gate.holdout_delimiter, gate.holdout_encoding)
        try:
            next(read_file(Path(gate.holdout), ("text", "label"), reading=reading), None)
        except DatasetError as error:
            raise InputError(f"gate.holdout: {error}") from error
    elif store.size_of(as_told(gate.holdout)) is None:
        raise InputError(f"gate.holdout is {gate.holdout}: there is no such file")


async def _train(
    settings: Settings, store: TrainingStore, launch: Launch, once: bool, stop: asyncio.Event
) -> Training | None:
    """The composition root: everything that a trainer touches is made here and passed in."""
    from concurrent.futures import ThreadPoolExecutor

    from prometheus_client import CollectorRegistry

    from headrace.core.clock import SystemClock
    from headrace.kafka.aio import AioKafkaCluster, calmed
    from headrace.kafka.dead_letters import keeping
    from headrace.learning.data.validation import text_keys
    from headrace.model.signing import signer
    from headrace.process.logs import event
    from headrace.trainer.metrics import TrainerMetrics
    from headrace.trainer.trainer import Trainer, TrainerTopics
    from headrace.trainer.training_run import TrainingTools

    if settings.trainer.split_key is None:
        event("split.unkeyed", level="warning", why=UNKEYED_WARNING)
    # Compiled now: later it would hold up the heartbeats.
    text_keys(["warm"])
    sign = signer(settings.signing.key_file, settings.signing.trusted)
    names = settings.topics.names()
    name = settings.worker.model_name
    cluster = AioKafkaCluster(settings.kafka)
    registry = CollectorRegistry()
    with ThreadPoolExecutor(1, thread_name_prefix="compute") as pool, calmed():
        offload = _offload(pool)
        running: Trainer | None = None
        async with admin_port(settings, registry, lambda: STARTING if running is None else running.unready):
            # Made only now: a port that is taken leaves nothing behind.
            running = Trainer(
                name=name,
                cluster=cluster,
                topics=TrainerTopics(
                    names.labels, names.dead_letters, names.models, names.results, names.machine_labels
                ),
                settings=settings.trainer,
                tools=TrainingTools(
                    store=store,
                    launch=launch,
                    decide=_gate(settings, cluster, offload),
                    sign=sign,
                    trusted=settings.signing.trusted,
                    offload=offload,
                    holdout=settings.gate.holdout,
                ),
                clock=SystemClock(),
                metrics=TrainerMetrics(registry),
                once=once,
                keep=keeping(settings.dead_letters),
                away_after=settings.kafka.away_after_ms / 1000,
                open_version=_opener(settings),
            )
            return await running.run(stop)


def _opener(settings: Settings) -> OpenVersion:
    """Opens a version as a worker does."""
    from headrace.learning.evaluate import answer_scored
    from headrace.model.backends.interface import open_backend
    from headrace.registry.versions import load_version

    trusted, places = settings.signing.trusted, settings.places()

    def open_version(version: ModelVersion) -> Ask:
        backend = open_backend("cpu", load_version(version, trusted, places))
        return lambda texts: answer_scored(backend, texts)

    return open_version


async def _help(settings: Settings, store: TrainingStore, launch: Launch, stop: asyncio.Event) -> None:
    """The composition root of a machine that only runs ranks."""
    from concurrent.futures import ThreadPoolExecutor

    from prometheus_client import CollectorRegistry

    from headrace.core.clock import SystemClock
    from headrace.kafka.aio import AioKafkaCluster, calmed
    from headrace.process.metrics import BrokerGauge
    from headrace.trainer.remote_node import Helper

    registry = CollectorRegistry()
    with ThreadPoolExecutor(1, thread_name_prefix="store") as pool, calmed():
        helper = Helper(
            name=settings.worker.model_name,
            cluster=AioKafkaCluster(settings.kafka),
            models=settings.topics.names().models,
            store=store,
            launch=launch,
            offload=_offload(pool),
            clock=SystemClock(),
            broker=BrokerGauge(registry),
            away_after=settings.kafka.away_after_ms / 1000,
        )
        async with admin_port(settings, registry, lambda: helper.unready):
            await helper.run(stop)


def _offload(pool: Executor) -> Offload:
    loop = asyncio.get_running_loop()

    async def offload(work: Callable[[], T]) -> T:
        return await loop.run_in_executor(pool, work)

    return offload


def _gate(settings: Settings, cluster: Cluster, offload: Offload) -> Decide:
    import numpy as np

    from headrace.core.clock import SystemClock
    from headrace.trainer.gate import Traffic, decide

    return functools.partial(
        decide,
        traffic=Traffic(cluster, settings.topics.names().requests, settings.requests),
        settings=settings.gate,
        trusted=settings.signing.trusted,
        places=settings.places(),
        clock=SystemClock(),
        offload=offload,
        randomness=np.random.default_rng(settings.trainer.seed),
    )
