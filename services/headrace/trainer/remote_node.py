"""A machine that helps: it runs its share of every training that the trainer begins, and decides nothing.

It learns of a training from the models topic, and what the ranks are told from the store. Its ranks wait for those of
the trainer's machine, so a trainer that was replaced meets them again when it goes on with the training.
"""

from __future__ import annotations

import asyncio

from headrace.core.clock import Clock
from headrace.core.errors import UserError
from headrace.kafka.interface import Cluster, UnknownTopicError
from headrace.kafka.reach import Reach, missing_of
from headrace.kafka.retry import patiently
from headrace.learning.distributed.job import Job
from headrace.model.errors import ArtifactError
from headrace.process.logs import event
from headrace.process.metrics import BrokerGauge
from headrace.registry.compacted_topics import ModelsLog
from headrace.trainer.store import TrainingStore
from headrace.trainer.training_run import Launch, Offload
from headrace_schemas.records import Training, TrainingState

LOOK_S = 1.0


class Helper:
    """Helps with the trainings of model ``name``; ``launch`` runs this machine's share of a job."""

    def __init__(
        self,
        *,
        name: str,
        cluster: Cluster,
        models: str,
        store: TrainingStore,
        launch: Launch,
        offload: Offload,
        clock: Clock,
        broker: BrokerGauge,
        away_after: float = 10.0,
    ) -> None:
        self._name = name
        self._store = store
        self._launch = launch
        self._offload = offload
        self._clock = clock
        self._job: Job | None = None
        self._sharing: asyncio.Task[object] | None = None
        self._read = False
        self._cluster = cluster
        self._looker = cluster.consumer()
        self._models = models
        self._reach = Reach(cluster, clock=clock, away_after=away_after)
        broker.follow(lambda: self._reach.connected)

    @property
    def unready(self) -> str | None:
        """Why this machine can't help, in words; None when it can."""
        return self._reach.unready or (None if self._read else "the models topic is being read")

    async def run(self, stop: asyncio.Event) -> None:
        """Help until ``stop`` is set. Raises a KafkaError that can't be mended here."""
        await self._looker.start()
        watching = asyncio.create_task(self._reach.watch(self._missing_topics), name="reach")
        try:
            while not stop.is_set():
                try:
                    await self._help(stop)
                except UnknownTopicError as error:
                    if not self._read:
                        raise
                    event("trainer.waits", level="warning", model=self._name, why=str(error))
                    await self._reach.whole(stop)
        finally:
            watching.cancel()
            await self._looker.stop()

    async def _help(self, stop: asyncio.Event) -> None:
        log = ModelsLog(self._cluster, self._models)
        try:
            await log.start()
            event("trainer.helps", model=self._name, why="waits for trainings that a trainer of this model begins")
            while not stop.is_set():
                self._reach.check_topics()
                await patiently(log.refresh, doing="reading the models topic", clock=self._clock)
                self._read = True
                await self._follow(await self._wanted(log.trainings.get(self._name)))
                await self._clock.sleep(LOOK_S)
        finally:
            await self._follow(None)
            await log.stop()

    async def _missing_topics(self) -> list[str]:
        return await missing_of(self._looker, [self._models])

    async def _wanted(self, training: Training | None) -> Job | None:
        """The job that this machine should have a share in: of the training that runs, and has no outcome yet."""
        if training is None or training.state is not TrainingState.RUNNING:
            return None
        running = self._sharing is not None and not self._sharing.done()
        if running and self._job is not None and self._job.id == training.id:
            # With an outcome or without: the machines end together.
            return self._job
        try:
            job = await self._offload(lambda: self._store.read_job(training.id))
            if job is None or await self._offload(lambda: self._store.read_outcome(job)) is not None:
                return None
        except ArtifactError as error:
            event("training.no_job", level="warning", model=self._name, error=str(error))
            return None
        return job

    async def _follow(self, wanted: Job | None) -> None:
        """Begin this machine's share of ``wanted``, or begin it again when it broke off; end that of another job."""
        if self._sharing is not None and (self._sharing.done() or wanted != self._job):
            self._sharing.cancel()
            (ended,) = await asyncio.gather(self._sharing, return_exceptions=True)
            self._sharing = None
            if isinstance(ended, UserError):
                event("training.share_failed", level="warning", model=self._name, why=str(ended))
            elif isinstance(ended, Exception):
                raise ended
        if self._sharing is None and wanted is not None:
            event("training.shared", model=self._name, training=wanted.id)
            self._job, self._sharing = wanted, asyncio.ensure_future(self._launch(wanted))
