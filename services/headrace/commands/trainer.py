"""`headrace trainer`: turn labels into versions, as the one that leads or as one that stands by."""

from __future__ import annotations

import asyncio
import functools
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from headrace.commands.common import Bootstrap, say, settings_from
from headrace.commands.rank import launcher

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from concurrent.futures import Executor

    from prometheus_client import CollectorRegistry

    from headrace.config import Settings
    from headrace.kafka.interface import Cluster
    from headrace.trainer.training_run import Decide, Launch, Offload
    from headrace_schemas.records import Training

T = TypeVar("T")
Text = str | None

STARTING = "starting"
STOP_S = 30.0
UNKEYED_WARNING = (
    "trainer.split_key is not set, so everybody can compute which texts the gate judges by, and whoever writes labels "
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
        int, typer.Option(min=0, metavar="NUMBER", help="From 1 on: only run ranks, as one more of trainer.nodes.")
    ] = 0,
) -> None:
    """Train until SIGTERM or Ctrl-C: read labels, begin a training when a rule says so, let the gate judge, publish.

    Of several trainers one leads and the others stand by. A training that is interrupted is gone on with by whoever
    leads next, from its last checkpoint.
    """
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
    launch = launcher(ctx, bootstrap, settings.trainer, settings.places(), node)
    if node:
        lifecycle.run(functools.partial(_help, settings, launch), drain_s=STOP_S)
        return
    ended = lifecycle.run(functools.partial(_train, settings, launch, once), drain_s=STOP_S)
    if ended is None:
        return
    if ended.state is TrainingState.FAILED:
        raise UserError(f"Training {ended.id} failed: {ended.error}")
    say(f"{ended.name}: trained {ended.version}")


async def _train(settings: Settings, launch: Launch, once: bool, stop: asyncio.Event) -> Training | None:
    """The composition root: everything that a trainer touches is made here and passed in."""
    import os
    from concurrent.futures import ThreadPoolExecutor

    # Threads of BLAS beside the ranks take the cores that they use. It is read when numpy loads.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

    from prometheus_client import CollectorRegistry

    from headrace.core.clock import SystemClock
    from headrace.kafka.aio import AioKafkaCluster, calmed
    from headrace.kafka.dead_letters import keeping
    from headrace.learning.data.validation import text_keys
    from headrace.model.signing import seals, signer
    from headrace.process.logs import event
    from headrace.trainer.metrics import TrainerMetrics
    from headrace.trainer.store import TrainingStore
    from headrace.trainer.trainer import Trainer, TrainerTopics

    if settings.trainer.split_key is None:
        event("split.unkeyed", level="warning", why=UNKEYED_WARNING)
    # Compiled now: later it would hold up the heartbeats.
    text_keys(["warm"])
    sign = signer(settings.signing.key_file, settings.signing.trusted)
    names = settings.topics.names()
    name = settings.worker.model_name
    own = seals(settings.signing.key_file, settings.signing.trusted)
    store = TrainingStore(settings.trainer.store, name, settings.places(), own)
    cluster = AioKafkaCluster(settings.kafka)
    registry = CollectorRegistry()
    with ThreadPoolExecutor(1, thread_name_prefix="compute") as pool, calmed():
        offload = _offload(pool)
        running: Trainer | None = None
        async with _admin(settings, registry, lambda: STARTING if running is None else running.unready):
            # Made only now: a port that is taken leaves nothing behind.
            running = Trainer(
                name=name,
                cluster=cluster,
                topics=TrainerTopics(names.labels, names.dead_letters, names.models, names.results),
                settings=settings.trainer,
                store=store,
                launch=launch,
                decide=_gate(settings, cluster, offload),
                sign=sign,
                trusted=settings.signing.trusted,
                offload=offload,
                clock=SystemClock(),
                metrics=TrainerMetrics(registry),
                once=once,
                keep=keeping(settings.dead_letters),
                holdout=settings.gate.holdout,
                away_after=settings.kafka.away_after_ms / 1000,
            )
            return await running.run(stop)


async def _help(settings: Settings, launch: Launch, stop: asyncio.Event) -> None:
    """The composition root of a machine that only runs ranks."""
    from concurrent.futures import ThreadPoolExecutor

    from prometheus_client import CollectorRegistry

    from headrace.core.clock import SystemClock
    from headrace.kafka.aio import AioKafkaCluster, calmed
    from headrace.model.signing import seals
    from headrace.process.admin import BrokerGauge
    from headrace.trainer.remote_node import Helper
    from headrace.trainer.store import TrainingStore

    own = seals(settings.signing.key_file, settings.signing.trusted)
    registry = CollectorRegistry()
    with ThreadPoolExecutor(1, thread_name_prefix="store") as pool, calmed():
        helper = Helper(
            name=settings.worker.model_name,
            cluster=AioKafkaCluster(settings.kafka),
            models=settings.topics.names().models,
            store=TrainingStore(settings.trainer.store, settings.worker.model_name, settings.places(), own),
            launch=launch,
            offload=_offload(pool),
            clock=SystemClock(),
            broker=BrokerGauge(registry),
            away_after=settings.kafka.away_after_ms / 1000,
        )
        async with _admin(settings, registry, lambda: helper.unready):
            await helper.run(stop)


@asynccontextmanager
async def _admin(
    settings: Settings, registry: CollectorRegistry, ready: Callable[[], str | None]
) -> AsyncIterator[None]:
    from headrace.process.admin import admin_server

    async with admin_server(
        settings.admin.host,
        settings.admin.port_of(0),
        neighbours=settings.admin.neighbours,
        health=lambda: None,
        ready=ready,
        registry=registry,
    ):
        yield


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
