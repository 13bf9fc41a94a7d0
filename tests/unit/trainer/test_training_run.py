"""Trainings that are found running: gone on with only by a job that is the trainer's own, and never over an erasure.

Whoever may write the models topic may write that a training runs, with any offsets.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from headrace.learning.distributed.job import TopicSource, outcome_uri
from headrace.model import store
from headrace.model.signing import SignatureError, seals
from headrace.trainer.store import TrainingStore
from headrace_schemas.records import OffsetRange, Training, TrainingState
from tests.support.places import ANYWHERE
from tests.support.signing import new_key
from tests.support.trainer_cluster import NAME, TrainerCluster, story

LONG_S = 1000.0


def forged(world: TrainerCluster, *ends: int, id_: str = "1") -> Training:
    """A record that says that a training of these offsets runs."""
    offsets = tuple(OffsetRange(partition, 0, end) for partition, end in enumerate(ends))
    now = world.clock.now_ms()
    return Training(name=NAME, id=id_, state=TrainingState.RUNNING, reason="", begun_at_ms=now, offsets=offsets)


async def interrupted(world: TrainerCluster) -> Training:
    """A training of three labels whose trainer was killed while its ranks ran."""
    world.train_s = LONG_S
    world.start()
    await world.label("a", "b", "c")
    await world.until(lambda: world.launched)
    world.kill()
    world.train_s = 5.0
    return world.trainings()[-1]


def trained_from(world: TrainerCluster) -> list[tuple[int, ...]]:
    """The frozen ends of each job that came to its end."""
    assert all(isinstance(job.source, TopicSource) for job in world.ended)
    return [tuple(one.end for one in job.source.ranges) for job in world.ended]


async def abandoned(world: TrainerCluster, why: str) -> None:
    """See that the training that was found is given up for that reason, and another one begun by itself."""
    (given_up,) = await world.trained(1, TrainingState.FAILED)
    assert why in (given_up.error or "")
    done = (await world.trained())[-1]
    assert done.id != given_up.id
    assert done.reason == f"training {given_up.id} was not gone on with"


@story
async def test_a_forged_training_brings_no_erased_text_back(world):
    await world.label("a", "b", "c", "erased")
    await world.put("erased", None)
    await world.decree(forged(world, 4, 0))
    world.start()
    await abandoned(world, "labels were erased behind its frozen offsets")
    assert trained_from(world) == [(5, 0)]


@story
async def test_a_forged_training_without_a_job_is_not_begun(world):
    await world.label("a", "b", "c")
    await world.decree(forged(world, 2, 0))
    world.start()
    await abandoned(world, "its trainer died before it had kept a job")
    assert trained_from(world) == [(3, 0)]


@story
async def test_an_interrupted_training_is_begun_anew_when_a_text_was_erased_meanwhile(world):
    await interrupted(world)
    await world.put("b", None)
    world.start("t1")
    await abandoned(world, "labels were erased behind its frozen offsets")
    assert trained_from(world) == [(4, 0)]


@story
async def test_an_interrupted_training_is_gone_on_with_where_other_labels_came_meanwhile(world):
    begun = await interrupted(world)
    await world.label("d", partition=1)
    world.start("t1")
    (done,) = await world.trained()
    assert done.id == begun.id
    assert trained_from(world)[0] == (3, 0)


@story
async def test_a_training_that_is_done_and_said_to_run_again_publishes_no_erased_text(world):
    world.start()
    await world.label("a", "b", "c")
    (done,) = await world.trained()
    await world.stop()
    # Its job is still there, and so is what came of it.
    job = TrainingStore(world.store, NAME).read_job(done.id)
    world.train_s = 0.0
    outcome = await world.launch(job)
    store.write(ANYWHERE.locate(outcome_uri(job)), msgspec.json.encode(outcome), "test")
    world.ended.clear()
    await world.put("a", None)
    await world.decree(msgspec.structs.replace(done, state=TrainingState.RUNNING, ended_at_ms=None, version=None))
    world.start("t1")
    await world.until(lambda: len(world.trainings(TrainingState.DONE)) == 2)
    assert trained_from(world) == [(4, 0)]
    assert world.trainings(TrainingState.FAILED)[-1].id == done.id


@pytest.mark.parametrize("change", ["offsets", "begun", "id"])
def test_a_record_that_is_not_that_of_its_job_is_not_gone_on_with(change):
    @story
    async def play(world):
        begun = await interrupted(world)
        other = {
            "offsets": {"offsets": (OffsetRange(0, 0, 2), *begun.offsets[1:])},
            "begun": {"begun_at_ms": begun.begun_at_ms + 1},
            "id": {"id": "2"},
        }[change]
        if change == "id":
            # Somebody who may write the store has copied the job.
            copied = ANYWHERE.locate(f"{world.store}/{NAME}/trainings/{begun.id}/job.json")
            store.write(ANYWHERE.locate(f"{world.store}/{NAME}/trainings/2/job.json"), store.read(copied), "test")
        await world.decree(msgspec.structs.replace(begun, **other))
        world.start("t1")
        await abandoned(world, "its record is not that of its job")

    play()


@story
async def test_a_training_of_days_ago_is_begun_anew(world):
    await interrupted(world)
    await world.clock.sleep(25 * 3600)
    world.start("t1")
    await abandoned(world, "it began more than a day ago")


@pytest.mark.parametrize("hostile", ["unsigned", "foreign", "altered", "another model's", "rubbish"])
def test_a_job_that_no_own_key_has_signed_is_not_gone_on_with(hostile, tmp_path: Path):
    own, foreign = (seals(str(new_key(tmp_path / name).file), ()) for name in ("own.pem", "foreign.pem"))

    @story
    async def play(world):
        world.seals = own
        begun = await interrupted(world)
        kept = TrainingStore(world.store, NAME, seals=own)
        job = kept.read_job(begun.id)
        where = ANYWHERE.locate(f"{world.store}/{NAME}/trainings/{begun.id}/job.json")
        if hostile == "unsigned":
            TrainingStore(world.store, NAME).write_job(job)
        elif hostile == "foreign":
            TrainingStore(world.store, NAME, seals=foreign).write_job(job)
        elif hostile == "altered":
            store.write(where, store.read(where).replace(b'"max_text_bytes":', b'"max_text_bytes":1'), "test")
        elif hostile == "another model's":
            TrainingStore(world.store, "other", seals=own).write_job(job)
            theirs = ANYWHERE.locate(f"{world.store}/other/trainings/{begun.id}/job.json")
            store.write(where, store.read(theirs), "test")
        else:
            store.write(where, b"{}", "test")
        world.start("t1")
        why = "is no job of a training" if hostile == "rubbish" else "The job of training"
        await abandoned(world, why)

    play()


def test_a_job_is_taken_from_whoever_holds_the_key_or_one_that_is_trusted(tmp_path: Path):
    first, second = (new_key(tmp_path / f"{name}.pem") for name in ("first", "second"))

    @story
    async def play(world):
        world.seals = seals(str(first.file), ())
        begun = await interrupted(world)

        def read(*trusted: str, key: Path | None) -> object:
            own = seals(None if key is None else str(key), trusted)
            return TrainingStore(world.store, NAME, seals=own).read_job(begun.id)

        assert read(key=first.file) == read(first.public, key=second.file) == read(first.public, key=None)
        assert read(key=None) is not None, "who trusts no key asks for no signature"
        with pytest.raises(SignatureError, match="is not signed by a key of this trainer"):
            read(key=second.file)
        world.start("t1")
        (done,) = await world.trained()
        assert done.id == begun.id

    play()
