"""What the ranks of one training are told."""

from __future__ import annotations

from headrace.learning.compress.plan import Budget
from headrace.learning.data.split import Splits
from headrace.learning.distributed.job import Job, TopicSource
from headrace.learning.fit.hyperparameters import adapted
from headrace.trainer.settings import TrainerSettings
from headrace.trainer.store import TrainingStore
from headrace_schemas.records import ModelVersion, Training

LONGEST_RESUME_MS = 24 * 3600 * 1000
"""A training that began before is not gone on with: Kafka's default keeps a tombstone for a day
(delete.retention.ms), so an erasure since then may be seen no more."""


def unfit(job: Job, training: Training, *, topic: str, store: TrainingStore, now_ms: int) -> str | None:
    """Why ``training``, of which others may have written the record, is not gone on with by ``job``; None if it is."""
    told = (job.id, job.created_at_ms, job.checkpoints, job.out)
    fits = (training.id, training.begun_at_ms, store.training(training.id), store.versions)
    source = job.source
    if (
        told != fits
        or not isinstance(source, TopicSource)
        or (source.topic, source.ranges) != (topic, training.offsets)
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
) -> Job:
    """The job of ``training``. Its time is that at which it began, so that going on with it makes the same version."""
    return Job(
        id=training.id,
        source=TopicSource(
            topic=topic, ranges=training.offsets, max_text_bytes=settings.max_text_bytes, labels=settings.labels
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
