"""`headrace trainer`: turn labels into versions, as the one that leads or as one that stands by."""

from __future__ import annotations

import asyncio
import functools
import sys
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from headrace.commands.common import Bootstrap, settings_from
from headrace.commands.launching import launcher

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

    from headrace.config import Settings
    from headrace.kafka.interface import Cluster
    from headrace.training.trainer.conducting import Decide, Launch, Offload
    from headrace_schemas.records import Training

T = TypeVar("T")
Text = str | None

NOT_READY = "not in the group yet, or the labels are being read"
STOP_S = 30.0


def trainer(
    ctx: typer.Context,
    *,
    bootstrap: Bootstrap = None,
    store: Annotated[Text, typer.Option(metavar="URI", help="Where artifacts and checkpoints go.")] = None,
    ranks: Annotated[int | None, typer.Option(min=1, help="Processes of a training.")] = None,
    once: Annotated[bool, typer.Option("--once", help="Train now, if there are labels, and end.")] = False,
) -> None:
    """Train until SIGTERM or Ctrl-C: read labels, begin a training when a rule says so, let the gate judge, publish.

    Of several trainers one leads and the others stand by. A training that is interrupted is gone on with by whoever
    leads next, from its last checkpoint.
    """
    from headrace import lifecycle, logs
    from headrace.core.errors import UserError
    from headrace_schemas.records import TrainingState

    options = {
        "--bootstrap": ("kafka.bootstrap", bootstrap),
        "--store": ("trainer.store", store),
        "--ranks": ("trainer.ranks", ranks),
    }
    settings = settings_from(ctx, options).settings
    logs.configure(sys.stderr, level=settings.log.level, form=settings.log.format)
    launch = launcher(ctx, bootstrap, settings.trainer)
    ended = lifecycle.run(functools.partial(_train, settings, launch, once), drain_s=STOP_S)
    if ended is None:
        if once:
            print(f"nothing was trained: {settings.topics.names().labels} holds no label that can be used")
    elif ended.state is TrainingState.FAILED:
        raise UserError(f"Training {ended.id} failed: {ended.error}")
    else:
        print(f"{ended.name}: trained {ended.version}")


async def _train(settings: Settings, launch: Launch, once: bool, stop: asyncio.Event) -> Training | None:
    """The composition root: everything that a trainer touches is made here and passed in."""
    import os
    from concurrent.futures import ThreadPoolExecutor

    # Threads of BLAS beside the ranks take the cores that they use. It is read when numpy loads.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

    from prometheus_client import CollectorRegistry

    from headrace.admin import admin_server
    from headrace.core.clock import SystemClock
    from headrace.kafka.aio import AioKafkaCluster
    from headrace.logs import event
    from headrace.training.text_keys import text_keys
    from headrace.training.trainer.metrics import TrainerMetrics
    from headrace.training.trainer.service import GroupTimes, Trainer, TrainerTopics
    from headrace.training.trainer.store import TrainingStore

    # Compiled now: later it would hold up the heartbeats.
    text_keys(["warm"])
    names = settings.topics.names()
    name = settings.worker.model_name
    cluster = AioKafkaCluster(settings.kafka)
    registry = CollectorRegistry()
    with ThreadPoolExecutor(1, thread_name_prefix="compute") as pool:
        offload = _offload(pool)
        running = Trainer(
            name=name,
            cluster=cluster,
            topics=TrainerTopics(names.labels, names.dead_letters, names.models, names.results),
            settings=settings.trainer,
            times=GroupTimes(settings.kafka.session_timeout_ms / 1000, settings.kafka.rebalance_timeout_ms / 1000),
            store=TrainingStore(settings.trainer.store, name),
            launch=launch,
            decide=_gate(settings, cluster, offload),
            offload=offload,
            clock=SystemClock(),
            metrics=TrainerMetrics(registry),
            once=once,
        )
        async with admin_server(
            settings.admin.host,
            settings.admin.port_of(0),
            health=lambda: None,
            ready=lambda: None if running.ready else NOT_READY,
            registry=registry,
        ) as port:
            event("admin.listening", host=settings.admin.host, port=port)
            return await running.run(stop)


def _offload(pool: Executor) -> Offload:
    loop = asyncio.get_running_loop()

    async def offload(work: Callable[[], T]) -> T:
        return await loop.run_in_executor(pool, work)

    return offload


def _gate(settings: Settings, cluster: Cluster, offload: Offload) -> Decide:
    import numpy as np

    from headrace.core.clock import SystemClock
    from headrace.training.gate.judge import Traffic, decide

    return functools.partial(
        decide,
        traffic=Traffic(cluster, settings.topics.names().requests, settings.requests),
        settings=settings.gate,
        clock=SystemClock(),
        offload=offload,
        randomness=np.random.default_rng(settings.trainer.seed),
    )
