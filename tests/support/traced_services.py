"""A worker that gives no answer a label, and the labeller that reviews its answers, with one tracer."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prometheus_client import CollectorRegistry

from headrace.core.clock import SystemClock
from headrace.kafka.interface import Cluster
from headrace.kafka.range_reader import read_topic
from headrace.labeller.labeller import Labeller
from headrace.labeller.metrics import LabellerMetrics
from headrace.labeller.settings import LabellerSettings
from headrace.labeller.term import LabellerTopics
from headrace.process.tracing import Tracer
from headrace.worker.metrics import WorkerMetrics
from headrace.worker.settings import WorkerSettings
from headrace.worker.stages.infer import Model
from headrace.worker.worker import Worker, WorkerTopics
from headrace_schemas.paths import RequestShape, compile_shape
from headrace_schemas.topics import TopicNames
from tests.support.models import LABELS, SumModel
from tests.support.spans import Recorder, context_of, ids_of, links_of
from tests.support.teachers import PlainTeacher
from tests.support.waiting import until

LIMIT_S = 60.0


@asynccontextmanager
async def answering(cluster: Cluster, names: TopicNames, tracer: Tracer) -> AsyncIterator[Labeller]:
    """Both, until the block ends; they are ready when it begins."""
    worker = Worker(
        cluster=cluster,
        topics=WorkerTopics(names.requests, names.results, names.dead_letters, names.models, names.workers),
        settings=WorkerSettings(group=f"{names.requests}-workers"),
        shape=RequestShape(),
        # Every score is below the threshold.
        model=Model("v1", LABELS, SumModel(score=0.1), threshold=0.9),
        clock=SystemClock(),
        offload=asyncio.to_thread,
        metrics=WorkerMetrics(CollectorRegistry()),
        process="worker",
        tracer=tracer,
    )
    labeller = Labeller(
        cluster=cluster,
        topics=LabellerTopics(
            names.requests,
            names.results,
            names.labels,
            names.machine_labels,
            names.reviews,
            names.teaching,
            names.models,
        ),
        model="default",
        settings=LabellerSettings(random=0.0, gold=0.0, group=f"{names.requests}-labellers"),
        teacher=PlainTeacher(),
        decode=compile_shape(RequestShape()),
        max_text_bytes=10_000,
        process="labeller",
        clock=SystemClock(),
        randomness=random.Random(1),
        metrics=LabellerMetrics(CollectorRegistry()),
        tracer=tracer,
    )
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as running:
        running.create_task(worker.run(stop))
        running.create_task(labeller.run(stop))
        try:
            await until(lambda: worker.unready is None, LIMIT_S)
            await until(lambda: labeller._term is not None and labeller._term.starting is None, LIMIT_S)
            yield labeller
        finally:
            stop.set()


async def reviewed(labeller: Labeller, recorder: Recorder, names: TopicNames) -> None:
    """Wait until the one request is labelled, and behind its label reviewed."""
    await until(lambda: recorder.spans(f"process {names.results}"), LIMIT_S)
    await until(lambda: labeller._term is not None and not labeller._term.calling, LIMIT_S)


async def check_one_trace(cluster: Cluster, names: TopicNames, recorder: Recorder, begun_by: str) -> None:
    """Request, answer and review belong to the span ``begun_by``, and the spans of the services link to it."""
    (first,) = recorder.spans(begun_by)
    found = [
        ids_of(record.headers)
        for topic in (names.requests, names.results, names.reviews)
        async for record in read_topic(cluster, topic, "records")
    ]
    assert found == [context_of(first)] * 3
    for name in (f"poll {names.requests}", f"process {names.requests}", f"process {names.results}"):
        (span,) = recorder.spans(name)
        assert links_of(span) == {context_of(first)}
    (work,), (send,) = recorder.spans(f"process {names.requests}"), recorder.spans(f"send {names.results}")
    assert context_of(send)[0] == context_of(work)[0]
