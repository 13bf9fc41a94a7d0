"""What the ranks of one training are told."""

from __future__ import annotations

from headrace.training.compress.plan import Budget
from headrace.training.ranks.job import Job, TopicSource
from headrace.training.recipe import adapted
from headrace.training.settings import TrainerSettings
from headrace.training.splitting import Splits
from headrace.training.trainer.store import TrainingStore
from headrace_schemas.records import ModelVersion, Training


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
        recipe=adapted(seed=settings.seed, epochs=settings.epochs, vectors=settings.vectors),
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
    )
