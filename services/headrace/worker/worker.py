"""The worker as a service: its parts are made, started, watched and closed here.

The stages of an answer are in :mod:`headrace.worker.pipeline`. Everything that touches the world is passed in, so a
test runs the same worker over the in-memory twin.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Collection

import msgspec

from headrace.core.clock import Clock
from headrace.core.errors import one_of_all, raise_failed
from headrace.kafka.dead_letters import Keep, keep_whole
from headrace.kafka.interface import Cluster, Consumer, KafkaError, UnknownTopicError
from headrace.kafka.reach import Reach, missing_of
from headrace.kafka.tracing import BatchSpans, traced
from headrace.process.logs import Recurring, event
from headrace.process.tracing import NO_TRACER, Tracer
from headrace.registry.compacted_topics import ModelsLog, WorkersLog, WorkersWriter
from headrace.worker.metrics import WorkerMetrics
from headrace.worker.partitions.assignment import Assignment
from headrace.worker.partitions.resume import Resumer, claim
from headrace.worker.pipeline import Offload, Pipeline
from headrace.worker.settings import WorkerSettings
from headrace.worker.stages.commit import Committer
from headrace.worker.stages.infer import Model
from headrace.worker.stages.publish import AnswerProducer
from headrace.worker.versions import Follower, Load, Serving
from headrace.worker.watchdog import Watchdog
from headrace_schemas.paths import RequestShape


class WorkerTopics(msgspec.Struct, frozen=True):
    """The names of the topics that a worker reads and writes."""

    requests: str
    results: str
    dead_letters: str
    models: str
    workers: str


class Worker:
    """One member of the group. ``process`` names this run of it, ``member`` is its static membership id.

    ``model`` answers for good, or it loads the versions that the alias of the settings points at. ``when_loaded`` is
    called before the worker joins the group. ``keep`` decides what a dead letter keeps of its request. After
    ``away_after`` seconds without an answer from Kafka the worker is not ready.
    """

    def __init__(
        self,
        *,
        cluster: Cluster,
        topics: WorkerTopics,
        settings: WorkerSettings,
        shape: RequestShape,
        model: Model | Load,
        clock: Clock,
        offload: Offload,
        metrics: WorkerMetrics,
        process: str,
        member: str | None = None,
        when_loaded: Callable[[], None] = lambda: None,
        keep: Keep = keep_whole,
        away_after: float = 10.0,
        trusted: Collection[str] = (),
        tracer: Tracer = NO_TRACER,
    ) -> None:
        self._cluster = cluster
        self._topics = topics
        self._process, self._member = process, member
        self._settings = settings
        self._shape, self._keep = shape, keep
        self._model, self._trusted = model, trusted
        self._clock = clock
        self._offload = offload
        self._metrics = metrics
        self._when_loaded = when_loaded
        self._tracer = tracer
        self._reach = Reach(cluster, clock=clock, away_after=away_after)
        self._waits = Recurring("worker.waits", monotonic=clock.monotonic)
        self._found_topics = False
        self._all_closed = False
        metrics.broker.follow(lambda: self._reach.connected)
        metrics.drift(lambda: self._serving.drift(clock.monotonic()))
        self._begin()

    def _begin(self) -> None:
        """Make all that remembers what it has read of the topics."""
        cluster, topics, settings = self._cluster, self._topics, self._settings
        process, clock, metrics = self._process, self._clock, self._metrics
        self._consumer = cluster.consumer(
            group=settings.group, member=self._member, read_committed=True, in_columns=True
        )
        self._reader = cluster.consumer()
        # Requests behind a transaction that is still open can't be answered, so they are no lag.
        self._watcher = cluster.consumer(read_committed=True)
        answers = traced(cluster.producer, self._tracer, (topics.results, topics.dead_letters), within=True)
        self._producer = AnswerProducer(answers, timeout=settings.publish_timeout, sleep=clock.sleep)
        self._models = ModelsLog(cluster, topics.models)
        self._workers = WorkersLog(cluster, topics.workers, self._models)
        self._workers_writer = WorkersWriter(self._producer, topics.workers)
        self._serving = Serving(breaker_threshold=settings.breaker_threshold, metrics=metrics)
        self._follower: Follower | None = None
        if isinstance(self._model, Model):
            self._serving.swap(self._model)
        else:
            self._follower = Follower(
                self._models,
                self._serving,
                name=settings.model_name,
                alias=settings.model,
                load=self._model,
                load_timeout=settings.load_timeout,
                keep_previous=settings.keep_previous,
                clock=clock,
                metrics=metrics,
                trusted=self._trusted,
            )
        self._committer = Committer(
            self._consumer, self._workers_writer, every=settings.commit_every, clock=clock, metrics=metrics
        )
        self._resumer = Resumer(
            reader=self._reader,
            member=self._consumer,
            workers=self._workers,
            results=topics.results,
            dead_letters=topics.dead_letters,
            max_batch=settings.max_batch,
            process=process,
            clock=clock,
            metrics=metrics,
        )
        self._assignment = Assignment(
            self._consumer,
            resume=self._resumer.resume,
            release=self._committer.release,
            sleep=clock.sleep,
            revoke_timeout=settings.revoke_timeout,
            metrics=metrics,
        )
        self._pipeline = Pipeline(
            consumer=self._consumer,
            producer=self._producer,
            assignment=self._assignment,
            committer=self._committer,
            serving=self._serving,
            write_attempts=self._workers_writer.publish,
            results=topics.results,
            dead_letters=topics.dead_letters,
            settings=settings,
            shape=self._shape,
            keep=self._keep,
            batch_bytes=cluster.batch_bytes,
            offload=self._offload,
            clock=clock,
            metrics=metrics,
            spans=BatchSpans(self._tracer, topics.requests, settings.group),
        )
        self._watchdog = Watchdog(
            self._watcher,
            self._assignment,
            fetch_positions=self._consumer.positions,
            limit=settings.watchdog,
            model_broken=lambda: self._serving.broken,
            long_batch_steps=self._consumer.long_batch_steps,
            clock=clock,
            metrics=metrics,
        )

    @property
    def unready(self) -> str | None:
        """Why no request is answered now, in words; None when requests are answered."""
        if self._reach.unready is not None:
            return self._reach.unready
        if self._serving.version is None:
            waiting_for = self._follower.waiting_for if self._follower is not None else ""
            return f"no version answers yet: {waiting_for or 'the topics are being read'}"
        if self._serving.broken:
            return f"the breaker is open: version {self._serving.version} fails on its own canary texts"
        if self._producer.missing is not None:
            return f"answers can't be published, a producer is being started: {self._producer.missing}"
        return self._assignment.unready

    async def run(self, stop: asyncio.Event) -> None:
        """Answer until ``stop`` is set, then drain. Topics that are gone are waited for, and the worker begins anew
        with what they hold then, as a new process does.

        Raises RefusedError, and a KafkaError that no retry can mend.
        """
        looker = self._cluster.consumer()
        watching: asyncio.Task[None] | None = None
        try:
            await looker.start()
            watching = asyncio.create_task(self._reach.watch(lambda: self._missing_topics(looker)), name="reach")
            while not stop.is_set():
                try:
                    await self._serve(stop)
                except UnknownTopicError as error:
                    # A part that is not closed could still write: only the end of the process ends it.
                    if not self._found_topics or not self._all_closed:
                        raise
                    self._waits.event(group=self._settings.group, why=str(error))
                    self._metrics.given_up()
                    self._begin()
                    await self._reach.whole(stop)
        finally:
            if watching is not None:
                watching.cancel()
            await self._closed(looker.stop)
            event("worker.stopped")

    async def _serve(self, stop: asyncio.Event) -> None:
        """Answer until ``stop`` is set, then drain. Raises UnknownTopicError when topics are gone."""
        try:
            await self._connect()
            self._found_topics = True
            if not await self._first_version(stop):
                return
            self._when_loaded()
            await self._join()
            async with asyncio.TaskGroup() as tasks:
                beside = [
                    tasks.create_task(work, name=name)
                    for name, work in (
                        ("watchdog", self._watchdog.run()),
                        ("follow", self._follow()),
                        ("lease", self._assignment.watch_lease()),
                        ("broken", _wait(self._assignment.broken)),
                        ("topics", self._reach.topics_gone()),
                    )
                ]
                await self._pipeline.run(stop)
                for task in beside:
                    task.cancel()
        except ExceptionGroup as group:
            raise one_of_all(group) from group
        finally:
            self._all_closed = await self._close()

    async def _missing_topics(self, looker: Consumer) -> list[str]:
        return await missing_of(looker, msgspec.structs.astuple(self._topics))

    async def _connect(self) -> None:
        parts = (self._producer.start(), self._start_logs(), self._reader.start(), self._watcher.start())
        raise_failed(await asyncio.gather(*parts, return_exceptions=True))

    async def _start_logs(self) -> None:
        """One after the other: classify.workers is read with classify.models beside it."""
        await self._models.start()
        await self._workers.start()

    async def _first_version(self, stop: asyncio.Event) -> bool:
        """Wait for the first version, without which the worker joins no group. False if it has to stop before."""
        if self._follower is None:
            return True
        first = asyncio.create_task(self._follower.first(), name="first version")
        gone = asyncio.create_task(self._reach.topics_gone(), name="topics")
        stopped = asyncio.create_task(stop.wait(), name="stop")
        try:
            await asyncio.wait((first, gone, stopped), return_when=asyncio.FIRST_COMPLETED)
            if first.done():
                first.result()
            if gone.done():
                gone.result()
            return not stop.is_set()
        finally:
            first.cancel()
            gone.cancel()
            stopped.cancel()

    async def _join(self) -> None:
        await claim(
            self._workers,
            self._workers_writer,
            self._reader,
            requests=self._topics.requests,
            results=self._topics.results,
            group=self._settings.group,
            start_from=self._settings.start_from,
            max_batch=self._settings.max_batch,
            claimer=hashlib.sha256(self._process.encode()).hexdigest()[:16],
            clock=self._clock,
        )
        await self._consumer.start()
        await self._consumer.subscribe([self._topics.requests], self._assignment)
        event("worker.started", version=self._serving.version, group=self._settings.group)

    async def _follow(self) -> None:
        if self._follower is not None:
            await self._follower.run()

    async def _close(self) -> bool:
        """Close all that :meth:`_begin` made; whether all of it is closed."""
        if self._follower is not None:
            self._follower.stop()
        closed = True
        for close in (
            self._assignment.stop,
            self._consumer.stop,
            self._reader.stop,
            self._watcher.stop,
            self._workers.stop,
            self._models.stop,
            self._producer.stop,
        ):
            closed &= await self._closed(close)
        return closed

    async def _closed(self, close: Callable[[], Awaitable[None]]) -> bool:
        try:
            async with asyncio.timeout(self._settings.drain_timeout):
                await close()
        except (KafkaError, TimeoutError) as error:
            late = f"not closed within worker.drain_timeout ({self._settings.drain_timeout:g} s)"
            event("worker.close_failed", level="warning", error=str(error) or late)
            return False
        return True


async def _wait(future: asyncio.Future[None]) -> None:
    await future
