"""The trainer's folders on every store: a job is kept whole, and old trainings go with all that they wrote."""

import pytest

from headrace.learning.distributed.job import FileSource, Job, read_outcome
from headrace.learning.fit.hyperparameters import Recipe
from headrace.model import store
from headrace.trainer.store import TrainingStore
from tests.support.places import ANYWHERE


def job_of(kept: TrainingStore, training_id: str) -> Job:
    return Job(
        id=training_id,
        source=FileSource(data="rows.jsonl"),
        recipe=Recipe(),
        checkpoints=kept.training(training_id),
        out=kept.versions,
    )


def test_a_job_is_read_back_and_absent_before(folder: str) -> None:
    kept = TrainingStore(folder, "default")
    job = job_of(kept, "1")
    assert kept.read_job("1") is None
    kept.write_job(job)
    assert kept.read_job("1") == job
    assert read_outcome(job, ANYWHERE) is None


def test_the_folders_of_other_trainings_go_and_those_of_another_model_stay(folder: str) -> None:
    kept, another = TrainingStore(folder, "default"), TrainingStore(folder, "another")
    kept.remove_trainings_but("3")
    for training_id in ("1", "2", "3"):
        kept.write_job(job_of(kept, training_id))
        store.write(ANYWHERE.locate(f"{kept.training(training_id)}/deep/epoch.pt"), b"state", "token")
    another.write_job(job_of(another, "1"))
    kept.remove_trainings_but("3")
    assert [kept.read_job(training_id) is None for training_id in ("1", "2", "3")] == [True, True, False]
    assert store.size_of(ANYWHERE.locate(f"{kept.training('1')}/deep/epoch.pt")) is None
    assert store.read(ANYWHERE.locate(f"{kept.training('3')}/deep/epoch.pt")) == b"state"
    assert another.read_job("1") is not None


@pytest.mark.parametrize("training_id", ["", "..", "../../elsewhere", "a/b", "1%2f2"])
def test_a_training_whose_id_is_a_path_gets_no_folder(folder: str, training_id: str) -> None:
    kept = TrainingStore(folder, "default")
    with pytest.raises(store.StoreError, match="no id of a training"):
        kept.read_job(training_id)
    with pytest.raises(store.StoreError, match="no id of a training"):
        kept.training(training_id)


def test_a_path_is_made_absolute_for_workers_elsewhere(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert TrainingStore("store", "default").versions == f"file://{tmp_path}/store/default/versions"
