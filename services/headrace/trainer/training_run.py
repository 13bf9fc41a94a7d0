"""One training, from its snapshot to the alias that points at its version.

Each step leaves a record or a file from which the next leader goes on instead of beginning again: the running training
with its frozen offsets, the job, the ranks' checkpoints, their outcome, the version, its verdict.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Protocol, TypeVar

import msgspec

from headrace.core.clock import Clock
from headrace.core.errors import UserError, frames_of, words_of
from headrace.kafka.election import NotLeadingError
from headrace.kafka.interface import KafkaError
from headrace.kafka.retry import patiently
from headrace.learning.compress.curve import Budget
from headrace.learning.data.split import Splits
from headrace.learning.distributed.job import Job, MachineSource, Outcome, TopicSource
from headrace.learning.fit.hyperparameters import adapted
from headrace.model.artifact import load
from headrace.model.errors import ArtifactError
from headrace.model.signing import Sign, verify
from headrace.process.logs import event
from headrace.registry.aliases import PinnedAliasError, move
from headrace.registry.compacted_topics import ModelsLog, ModelsWriter
from headrace.registry.versions import version_record
from headrace.trainer.metrics import TrainerMetrics
from headrace.trainer.settings import TrainerSettings
from headrace.trainer.store import TrainingStore
from headrace_schemas.records import (
    ModelAlias,
    ModelsRecord,
    ModelVersion,
    OffsetRange,
    ThresholdRaise,
    Training,
    TrainingOrder,
    TrainingState,
    Verdict,
)

LONGEST_RESUME_MS = 24 * 3600 * 1000
"""A training that began before is not gone on with: Kafka's default keeps a tombstone for a day
(delete.retention.ms), so an erasure since then may be seen no more."""


def unfit(job: Job, training: Training, *, topic: str, store: TrainingStore, now_ms: int) -> str | None:
    """Why ``job`` may not go on with ``training``, whose record others may have written; None if it may."""
    told = (job.id, job.created_at_ms, job.checkpoints, job.out)
    fits = (training.id, training.begun_at_ms, store.training(training.id), store.versions)
    source = job.source
    if (
        told != fits
        or not isinstance(source, TopicSource)
        or (source.topic, source.ranges) != (topic, training.offsets)
        or (source.machine is not None and source.machine.ranges != training.machine_offsets)
    ):
        return "its record is not that of its job, so somebody else wrote one of the two"
    if now_ms - training.begun_at_ms > LONGEST_RESUME_MS:
        return "it began more than a day ago, and what was erased since may be seen no more"
    return None


def job_of(
    training: Training,
    *,
    topic: str,
    champion: ModelVersion | None,
    baseline: ModelVersion | None,
    settings: TrainerSettings,
    store: TrainingStore,
    holdout: str | None,
    machine: MachineSource | None = None,
    rules: dict[str, str | None] | None = None,
) -> Job:
    """The job of ``training``. Its time is that at which it began, so that going on with it makes the same version."""
    return Job(
        id=training.id,
        source=TopicSource(
            topic=topic,
            ranges=training.offsets,
            max_text_bytes=settings.max_text_bytes,
            labels=settings.labels,
            machine=machine,
            rules=rules or {},
        ),
        recipe=adapted(
            seed=settings.seed, epochs=settings.epochs, vectors=settings.vectors, max_tokens=settings.max_tokens
        ),
        follow_lengths=settings.max_tokens is None,
        budget=Budget(points=settings.budget_points) if settings.budget_points else None,
        checkpoints=store.training(training.id),
        out=store.versions,
        created_at_ms=training.begun_at_ms,
        parent=None if champion is None else champion.version,
        champion=champion,
        baseline=None if baseline == champion else baseline,
        split=Splits(settings.split_key, settings.previous_split_key).current.id,
        holdout=holdout,
        accept=settings.accept,
        max_labels=settings.max_labels,
    )


CHAMPION = "champion"
CHALLENGER = "challenger"
BASELINE = "baseline"
LONGEST_ERROR = 4000

T = TypeVar("T")

Launch = Callable[[Job], Awaitable[Outcome]]
"""Runs the ranks of a job to their end; cancelling it ends them."""

Decide = Callable[[ModelVersion, ModelVersion | None, Outcome], Awaitable[Verdict]]
"""The gate: what becomes of a candidate, compared with the champion that the job named."""


class Offload(Protocol):
    """Runs a function off the event loop."""

    async def __call__(self, work: Callable[[], T], /) -> T: ...


class TrainingTools(msgspec.Struct, frozen=True, kw_only=True):
    """What the trainings of a trainer need from outside.

    ``sign`` signs what is published. If there are ``trusted`` public keys, one of them has to have signed the champion
    that a candidate is compared with. ``holdout`` names the rows that decide instead of the test rows.
    """

    store: TrainingStore
    launch: Launch
    decide: Decide
    sign: Sign
    trusted: Collection[str]
    offload: Offload
    holdout: str | None = None


class Conductor:
    """Conducts the trainings of model ``name``. ``writer`` raises NotLeadingError unless this trainer still leads."""

    def __init__(
        self,
        *,
        name: str,
        topic: str,
        settings: TrainerSettings,
        log: ModelsLog,
        writer: ModelsWriter,
        tools: TrainingTools,
        clock: Clock,
        metrics: TrainerMetrics,
    ) -> None:
        self._name = name
        self._topic = topic
        self._settings = settings
        self._log = log
        self._writer = writer
        self._tools = tools
        self._clock = clock
        self._metrics = metrics

    async def begin(
        self,
        reason: str,
        offsets: Sequence[OffsetRange],
        *,
        machine_offsets: Sequence[OffsetRange] = (),
        not_before_ms: int = 0,
    ) -> Training:
        """Publish that a training of ``offsets`` runs, for ``reason``; :meth:`conduct` does the rest.

        ``machine_offsets`` are the frozen ranges of the labels of teachers.

        ``not_before_ms``: the time of the order that it answers, which another machine's clock may have set.
        """
        begun_at_ms = max(self._clock.now_ms(), not_before_ms)
        training = Training(
            name=self._name,
            id=f"{begun_at_ms:013d}",
            state=TrainingState.RUNNING,
            reason=reason,
            begun_at_ms=begun_at_ms,
            offsets=tuple(offsets),
            machine_offsets=tuple(machine_offsets),
        )
        await self._publish([training])
        event("training.begun", model=self._name, training=training.id, reason=reason)
        return training

    async def job_to_go_on_with(self, training: Training, *, erased: bool) -> Job | str:
        """The job of a training that was found running, or in words why it is not gone on with.

        Whoever may write the models topic can write such a record. So its frozen offsets count only with a job that is
        signed by a key of ours, where there is one, and says the same; and not when a label was ``erased`` behind them,
        because the training may hold the text.
        """
        if erased:
            return "labels were erased behind its frozen offsets"
        try:
            job = await self._tools.offload(lambda: self._tools.store.read_job(training.id))
            if job is None:
                return "its trainer died before it had kept a job"
            now_ms = self._clock.now_ms()
            return unfit(job, training, topic=self._topic, store=self._tools.store, now_ms=now_ms) or job
        except ArtifactError as error:
            return str(error)

    async def abandon(self, training: Training, why: str) -> None:
        """End a training that was found running and is not gone on with."""
        event("training.abandoned", level="warning", model=self._name, training=training.id, why=why)
        ended = self._ended(training, TrainingState.FAILED, error=f"not gone on with: {why}"[:LONGEST_ERROR])
        await self._publish([ended])

    async def conduct(
        self, training: Training, job: Job | None = None, *, machine: MachineSource | None = None
    ) -> Training:
        """See a running training through, from wherever it got to; the record of its end, which is published.

        ``job``: that of one that is gone on with, from :meth:`job_to_go_on_with`; one that was just begun has none, and
        ``machine`` is what it learns from teachers.
        What fails in it fails only this training. Raises NotLeadingError when another trainer leads, and KafkaErrors
        that can't be mended here.
        """
        self._metrics.begun()
        try:
            outcome, version, champion = await self._train(training, job, machine)
            verdict = await self._judge(version, champion, outcome)
        except (NotLeadingError, KafkaError):
            raise
        except Exception as error:  # noqa: BLE001 - a job, a store or a gate that fails must not end the service
            # The record is for everybody who reads the topic, so it holds our own words only; so does the log.
            reason = words_of(error)
            where = None if isinstance(error, UserError) else frames_of(error)
            event("training.failed", level="error", model=self._name, training=training.id, why=reason, traceback=where)
            ended = self._ended(training, TrainingState.FAILED, error=reason[:LONGEST_ERROR])
            await self._publish([ended])
        else:
            ended = self._ended(training, TrainingState.DONE, version=version.version)
            # In one batch: who sees the training done sees where its version is.
            await self._publish([verdict, *self._moves(version, verdict), ended])
        self._metrics.ended(ended)
        return ended

    async def raise_threshold(self, risen: ThresholdRaise) -> None:
        """Publish the raise that a broken bound asks for, and order a training."""
        event("cascade.broken", level="warning", version=risen.version, threshold=risen.threshold, why=risen.reason)
        order = TrainingOrder(name=self._name, ordered_at_ms=self._clock.now_ms(), reason=f"cascade: {risen.reason}")
        await self._publish([risen, order])

    async def disown(self, training: Training) -> None:
        """End a running training that this trainer, which leads, did not begin: a frozen one published it too late."""
        if training.state is TrainingState.RUNNING:
            event("training.disowned", level="warning", model=self._name, training=training.id)
            error = "it was begun by a trainer that led no more"
            await self._publish([self._ended(training, TrainingState.FAILED, error=error)])

    async def _train(
        self, training: Training, resumed: Job | None, machine: MachineSource | None
    ) -> tuple[Outcome, ModelVersion, ModelVersion | None]:
        job = resumed or await self._new_job(training, machine)
        outcome = await self._tools.offload(lambda: self._tools.store.read_outcome(job))
        if outcome is None:
            outcome = await self._tools.launch(job)
        version = await self._version(outcome)
        # Also over a record of that name that is not ours to the last letter, its signature included.
        if self._log.versions.get((version.name, version.version)) != version:
            await self._publish([version])
            event("version.published", model=self._name, version=version.version, uri=version.uri)
        return outcome, version, self._known(job.parent)

    async def _new_job(self, training: Training, machine: MachineSource | None) -> Job:
        champion = self._log.resolve(self._name, CHAMPION)
        baseline = self._log.resolve(self._name, BASELINE)
        for rival in (champion, baseline):
            if rival is not None:
                # The ranks look too: their job comes from the store. This is before any of them is started.
                verify(rival, self._tools.trusted)
        fresh = job_of(
            training,
            topic=self._topic,
            champion=champion,
            baseline=baseline,
            settings=self._settings,
            store=self._tools.store,
            holdout=self._tools.holdout,
            machine=machine,
            rules=self._log.rules_of(self._name),
        )
        await self._tools.offload(lambda: self._tools.store.remove_trainings_but(training.id))
        await self._tools.offload(lambda: self._tools.store.write_job(fresh))
        return fresh

    async def _version(self, outcome: Outcome) -> ModelVersion:
        where = self._tools.store.artifact(outcome)
        artifact = await self._tools.offload(lambda: load(where, outcome.sha256, outcome.size))
        return self._tools.sign(version_record(artifact, name=self._name, where=where, now_ms=self._clock.now_ms()))

    async def _judge(self, version: ModelVersion, champion: ModelVersion | None, outcome: Outcome) -> Verdict:
        verdict = await self._tools.decide(version, champion, outcome)
        await patiently(self._log.refresh, doing="reading the models topic", clock=self._clock)
        now = self._log.aliases.get((self._name, CHAMPION))
        compared = None if champion is None else champion.version
        if verdict.promoted and now is not None and now.version not in (compared, version.version):
            reason = f"the champion is {now.version} by now, and this was compared with {compared or 'none'}"
            verdict = msgspec.structs.replace(verdict, promoted=False, reason=reason, baseline=None)
        self._metrics.judged(promoted=verdict.promoted)
        return verdict

    def _moves(self, version: ModelVersion, verdict: Verdict) -> list[ModelAlias]:
        """The records that point champion or challenger, and the baseline: what is pinned is moved by hand."""
        alias, reason = (CHAMPION if verdict.promoted else CHALLENGER), verdict.reason
        pointer = self._log.aliases.get((self._name, CHAMPION))
        if verdict.promoted and pointer is not None and pointer.pinned:
            alias, reason = CHALLENGER, f"champion is pinned to {pointer.version}; the gate: {verdict.reason}"
        try:
            moved = move(self._log, self._name, alias, version.version, reason=reason, now_ms=self._clock.now_ms())
        except PinnedAliasError as error:
            event("version.unplaced", level="warning", model=self._name, version=version.version, why=str(error))
            return []
        event("version.placed", model=self._name, version=version.version, alias=alias, reason=reason)
        return [moved, *self._moves_of_baseline(verdict, champion=version.version if alias == CHAMPION else None)]

    def _moves_of_baseline(self, verdict: Verdict, *, champion: str | None) -> list[ModelAlias]:
        """The record that points the baseline at the best version so far: the new ``champion``, or the first one."""
        pointer, best = self._log.aliases.get((self._name, BASELINE)), verdict.baseline
        raised = best == verdict.version
        if best is None or (raised and champion is None) or (pointer is not None and (pointer.pinned or not raised)):
            return []
        reason = "better than the baseline before, for certain" if pointer is not None else "the first baseline"
        event("version.placed", model=self._name, version=best, alias=BASELINE, reason=reason)
        return [move(self._log, self._name, BASELINE, best, reason=reason, now_ms=self._clock.now_ms())]

    def _known(self, version: str | None) -> ModelVersion | None:
        return None if version is None else self._log.versions.get((self._name, version))

    def _ended(
        self, training: Training, state: TrainingState, *, version: str | None = None, error: str | None = None
    ) -> Training:
        return msgspec.structs.replace(
            training, state=state, ended_at_ms=self._clock.now_ms(), version=version, error=error
        )

    async def _publish(self, records: Sequence[ModelsRecord]) -> None:
        await self._writer.publish(records)
        await patiently(self._log.refresh, doing="reading the models topic", clock=self._clock)
