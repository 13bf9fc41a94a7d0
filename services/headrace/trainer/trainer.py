"""The trainer as a service: it stands by, is elected, leads for a term, and stands by again.

Everything that touches the world is passed in, so a test runs the same trainer over the in-memory twin.
"""

from __future__ import annotations

import asyncio

import msgspec

from headrace.core.clock import Clock
from headrace.core.errors import one_of_all
from headrace.kafka.dead_letters import Keep, keep_whole
from headrace.kafka.election import Election, NotLeadingError
from headrace.kafka.interface import Cluster, Consumer, KafkaError, OffsetOutOfRangeError, UnknownTopicError
from headrace.kafka.reach import Reach, missing_of
from headrace.kafka.retry import PatientSender, started
from headrace.learning.data.validation import KnownLabels
from headrace.process.logs import event
from headrace.registry.compacted_topics import ModelsLog, ModelsWriter
from headrace.trainer.certificate import CascadeWatch, OpenVersion
from headrace.trainer.drift import DriftWatch
from headrace.trainer.labels import LabelsReader
from headrace.trainer.leadership import Term
from headrace.trainer.machine_labels import MachineLabelsReader
from headrace.trainer.metrics import TrainerMetrics
from headrace.trainer.settings import TrainerSettings
from headrace.trainer.training_run import Conductor, TrainingTools
from headrace_schemas.records import OffsetRange, Training

STOP_S = 10.0


class TrainerTopics(msgspec.Struct, frozen=True):
    """The names of the topics that a trainer reads and writes."""

    labels: str
    dead_letters: str
    models: str
    results: str
    machine_labels: str


class Trainer:
    """One trainer of model ``name``. With ``once`` it ends with the first training that it conducted."""

    def __init__(
        self,
        *,
        name: str,
        cluster: Cluster,
        topics: TrainerTopics,
        settings: TrainerSettings,
        tools: TrainingTools,
        clock: Clock,
        metrics: TrainerMetrics,
        once: bool = False,
        keep: Keep = keep_whole,
        away_after: float = 10.0,
        open_version: OpenVersion | None = None,
    ) -> None:
        self._name = name
        self._cluster = cluster
        self._topics = topics
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._once = once
        self._keep = keep
        self._sender = PatientSender(cluster, clock)
        self._tools = tools
        self._open_version = open_version
        self._reach = Reach(cluster, clock=clock, away_after=away_after)
        metrics.broker.follow(lambda: self._reach.connected)
        self._ended: Training | None = None
        self._served = False
        self._begin()

    def _begin(self) -> None:
        """Make all that remembers what it has read of the topics."""
        cluster, topics, settings, clock = self._cluster, self._topics, self._settings, self._clock
        self._log = ModelsLog(cluster, topics.models)
        self._election = Election(
            cluster, topic=topics.models, group=f"{settings.group}-election", who="trainer", clock=clock
        )
        self._drift = None
        if settings.drift is not None:
            self._drift = DriftWatch(
                cluster,
                results=topics.results,
                answers=settings.drift_answers,
                seconds=settings.drift_seconds,
                clock=clock,
                metrics=self._metrics,
            )
        self._cascade = None
        if self._open_version is not None:
            self._cascade = CascadeWatch(
                cluster,
                labels=topics.labels,
                max_text_bytes=settings.max_text_bytes,
                open_version=self._open_version,
                offload=self._tools.offload,
                clock=clock,
                metrics=self._metrics,
            )
        self._conductor = Conductor(
            name=self._name,
            topic=topics.labels,
            settings=settings,
            log=self._log,
            writer=ModelsWriter(PatientSender(cluster, clock, self._election.confirm), topics.models),
            tools=self._tools,
            clock=clock,
            metrics=self._metrics,
        )
        self._term: Term | None = None

    @property
    def unready(self) -> str | None:
        """Why this trainer does not do its work, in words; None when it stands by in the group, or leads and has read
        all labels.
        """
        if self._reach.unready is not None:
            return self._reach.unready
        if not self._election.joined:
            return "not in the group yet"
        if self._election.leads and (self._term is None or not self._term.read):
            return "the labels are being read"
        return None

    @property
    def leads(self) -> bool:
        """Whether this trainer, of all of its group, trains."""
        return self._election.leads

    async def run(self, stop: asyncio.Event) -> Training | None:
        """Work until ``stop`` is set; a training that runs then is left to whoever leads next.

        Returns the training that ended, with ``once``. Raises a KafkaError that can't be mended here.
        """
        looker = self._cluster.consumer()
        await looker.start()
        watching = asyncio.create_task(self._reach.watch(lambda: self._missing_topics(looker)), name="reach")
        try:
            while not stop.is_set():
                try:
                    return await self._serve(stop)
                except UnknownTopicError as error:
                    if not self._served:
                        raise
                    event("trainer.waits", level="warning", model=self._name, why=str(error))
                self._begin()
                await self._reach.whole(stop)
        finally:
            watching.cancel()
            await looker.stop()
        return None

    async def _serve(self, stop: asyncio.Event) -> Training | None:
        """Work until ``stop`` is set. Raises UnknownTopicError when topics are gone, with all that they held."""
        try:
            await self._log.start()
            await self._election.start()
            self._served = True
            event("trainer.started", model=self._name, group=self._settings.group)
            async with asyncio.TaskGroup() as group:
                electing, working = group.create_task(self._election.run()), group.create_task(self._work())
                losing = group.create_task(self._reach.topics_gone())
                stopping = group.create_task(stop.wait())
                await asyncio.wait((stopping, working), return_when=asyncio.FIRST_COMPLETED)
                for task in (electing, working, losing, stopping):
                    task.cancel()
        except ExceptionGroup as raised:
            raise one_of_all(raised) from raised
        finally:
            await self._close()
        return self._ended

    async def _missing_topics(self, looker: Consumer) -> list[str]:
        # The labels of teachers are no need: an older cluster has no topic of them.
        topics = [name for name in msgspec.structs.astuple(self._topics) if name != self._topics.machine_labels]
        return await missing_of(looker, topics)

    async def _work(self) -> None:
        while True:
            await self._election.won()
            self._metrics.leads(leads=True)
            event("trainer.leads", model=self._name)
            self._term = self._new_term()
            leading = asyncio.create_task(self._term.run(once=self._once))
            try:
                if await self._to_its_end(leading):
                    self._ended = leading.result()
                    return
            finally:
                leading.cancel()
                await asyncio.gather(leading, return_exceptions=True)
                self._metrics.leads(leads=False)

    async def _to_its_end(self, leading: asyncio.Task[Training | None]) -> bool:
        """Whether the term has ended by itself, rather than because another may lead or the labels moved away."""
        lost = asyncio.create_task(self._election.lost())
        try:
            await asyncio.wait((leading, lost), return_when=asyncio.FIRST_COMPLETED)
            if leading.done():
                leading.result()
                return True
            event("trainer.lost", model=self._name)
        except NotLeadingError as error:
            event("trainer.lost", model=self._name, why=str(error))
        except OffsetOutOfRangeError as error:
            event("labels.read_again", level="warning", model=self._name, why=str(error))
        finally:
            lost.cancel()
        return False

    def _new_term(self) -> Term:
        return Term(
            name=self._name,
            log=self._log,
            make_reader=self._reader,
            make_machine_reader=self._machine_reader,
            drift=self._drift,
            conductor=self._conductor,
            limits=self._settings.limits,
            clock=self._clock,
            metrics=self._metrics,
            cascade=self._cascade,
            trusted=self._tools.trusted,
        )

    async def _reader(self, snapshot: tuple[OffsetRange, ...]) -> LabelsReader:
        def consumer() -> Consumer:
            return self._cluster.consumer(group=self._settings.group, read_committed=True)

        return LabelsReader(
            await started(consumer, doing="connecting to read labels", clock=self._clock),
            KnownLabels(self._settings.labels, self._log.rules_of(self._name)),
            topic=self._topics.labels,
            dead_letters=self._topics.dead_letters,
            snapshot=snapshot,
            max_text_bytes=self._settings.max_text_bytes,
            sender=self._sender,
            clock=self._clock,
            metrics=self._metrics,
            keep=self._keep,
        )

    async def _machine_reader(self, snapshot: tuple[OffsetRange, ...]) -> MachineLabelsReader:
        def consumer() -> Consumer:
            return self._cluster.consumer(read_committed=True)

        return MachineLabelsReader(
            await started(consumer, doing="connecting to read labels of teachers", clock=self._clock),
            topic=self._topics.machine_labels,
            snapshot=snapshot,
            settings=self._settings,
            rules=self._log.rules_of(self._name),
            clock=self._clock,
            metrics=self._metrics,
        )

    async def _close(self) -> None:
        for close in (self._election.stop, self._log.stop):
            try:
                async with asyncio.timeout(STOP_S):
                    await close()
            except (KafkaError, TimeoutError) as error:
                event("trainer.close_failed", level="warning", error=str(error) or f"not closed within {STOP_S:g} s")
        event("trainer.stopped", model=self._name)
