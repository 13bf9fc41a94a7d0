"""What a training keeps between its processes, on every store: the job, the checkpoints and the outcome."""

from __future__ import annotations

import fsspec
import torch

from headrace.learning.distributed.collectives import Alone
from headrace.learning.distributed.job import FileSource, Job, StoredCheckpoints, read_outcome
from headrace.learning.fit.hyperparameters import Recipe
from headrace.trainer.store import TrainingStore
from tests.support.places import ANYWHERE


def job_of(folder: str, training: str) -> Job:
    return Job(
        id=training,
        source=FileSource(data="rows.jsonl"),
        recipe=Recipe(),
        checkpoints=f"{folder}/m/trainings/{training}",
        out=f"{folder}/m/versions",
    )


def test_a_job_is_read_by_who_goes_on_with_it_and_old_ones_are_removed(folder: str) -> None:
    trainer, successor = TrainingStore(folder, "m"), TrainingStore(folder, "m")
    assert successor.read_job("one") is None
    for training in ("one", "two"):
        job = job_of(folder, training)
        trainer.write_job(job)
        assert successor.read_job(training) == job
        assert read_outcome(job, ANYWHERE) is None
    successor.remove_trainings_but("two")
    assert trainer.read_job("one") is None
    assert trainer.read_job("two") is not None


def test_a_checkpoint_replaces_the_one_before_and_lies_alone(folder: str) -> None:
    uri = f"{folder}/m/trainings/one"
    checkpoints = StoredCheckpoints(uri, Alone(), ANYWHERE)
    assert checkpoints.load("search") is None
    for epoch in (1, 2):
        checkpoints.save("search", {"epoch": epoch, "weights": torch.full((3,), float(epoch))})
    found = StoredCheckpoints(uri, Alone(), ANYWHERE).load("search")
    assert found is not None
    assert found["epoch"] == 2
    assert torch.equal(found["weights"], torch.full((3,), 2.0))
    files, path = fsspec.url_to_fs(folder)
    files.invalidate_cache()
    assert [name.rpartition("/")[2] for name in files.find(path)] == ["search.msgpack"]
