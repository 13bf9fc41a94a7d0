"""Trainers where versions are signed: theirs are, and what no trusted key signed is neither compared nor loaded."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from headrace.kafka.interface import Outgoing
from headrace.learning.data.split import Splits
from headrace.learning.distributed.collectives import Alone
from headrace.learning.distributed.job import FileSource, Job
from headrace.learning.distributed.rank import run
from headrace.learning.fit.hyperparameters import Recipe
from headrace.model.artifact import save
from headrace.model.places import as_told
from headrace.model.signing import SignatureError, signer, verify
from headrace.registry.versions import version_record
from headrace_schemas.codec import encode_result
from headrace_schemas.records import ClassifyResult, ModelAlias, ModelVersion, Profile, Status, TrainingState
from tests.support.networks import random_artifact
from tests.support.places import ANYWHERE
from tests.support.signing import SigningKey, new_key
from tests.support.trainer_cluster import NAME, TOPICS, TrainerCluster, story


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    return new_key(tmp_path / "own.pem")


def trusting(world: TrainerCluster, key: SigningKey) -> None:
    world.trusted = (key.public,)
    world.sign = signer(str(key.file), world.trusted)


def versions(world: TrainerCluster) -> list[ModelVersion]:
    return [record for record in world.models() if isinstance(record, ModelVersion)]


def champion(world: TrainerCluster) -> ModelVersion:
    """A version that somebody published, as nobody has signed it."""
    artifact = random_artifact(4)
    uri = f"{world.store}/by-hand"
    save(artifact, uri)
    return version_record(artifact, name=NAME, where=ANYWHERE.locate(uri), now_ms=world.clock.now_ms())


def points_at(version: ModelVersion) -> ModelAlias:
    return ModelAlias(name=NAME, alias="champion", version=version.version, moved_at_ms=1)


def test_a_trainer_signs_its_versions(key):
    @story
    async def play(world):
        trusting(world, key)
        world.start()
        await world.label("a", "b", "c")
        await world.trained(1)
        (version,) = versions(world)
        verify(version, [key.public])
        assert world.alias().version == version.version
        await world.label("a", "b", "c", label="neg")
        await world.trained(2)
        assert world.launched[1].champion == version

    play()


def test_a_training_beside_an_unsigned_champion_fails_with_the_reason_before_it_is_launched(key):
    @story
    async def play(world):
        unsigned = champion(world)
        await world.decree(unsigned, points_at(unsigned))
        trusting(world, key)
        world.start()
        await world.label("a", "b", "c")
        (failed,) = await world.trained(1, TrainingState.FAILED)
        assert f"Version {unsigned.version} of model 'default' is not signed" in failed.error
        assert world.launched == []
        assert world.alias().version == unsigned.version
        # Signed by hand, it is compared with at the next try.
        await world.decree(key.sign(unsigned))
        await world.trained(1)
        assert world.compared == [unsigned.version]

    play()


def test_a_record_that_somebody_put_under_the_name_of_a_trained_version_is_replaced_by_the_signed_one(key):
    @story
    async def play(world):
        trusting(world, key)
        world.promoted = False
        world.start()
        await world.label("a", "b", "c")
        await world.trained(1)
        (made,) = versions(world)
        world.kill()
        # As if the trainer had died before it published the version, and somebody had been quicker.
        await world.decree(msgspec.structs.replace(made, signature=None, labels=("x", "y", "z")))
        await world.decree(next(record for record in world.trainings() if record.state is TrainingState.RUNNING))
        world.start("t1")
        await world.trained(2)
        assert versions(world)[-1] == made

    play()


def test_a_rank_does_not_load_a_champion_of_its_job_that_no_trusted_key_signed(key, tmp_path):
    artifact = random_artifact(4)
    save(artifact, str(tmp_path / "champion"))
    record = version_record(artifact, name=NAME, where=as_told(str(tmp_path / "champion")), now_ms=1)
    job = Job(
        id="1", source=FileSource(data="nowhere.jsonl"), recipe=Recipe(), checkpoints="memory://none",
        out="memory://none", champion=record,
    )  # fmt: skip
    with pytest.raises(SignatureError, match="is not signed"):
        run(job, None, Alone(), trusted=[key.public], splits=Splits(), places=ANYWHERE)


@pytest.mark.parametrize(
    "profile",
    [
        Profile((1.0,), (0.1,) * 10),
        Profile((0.5, 0.25, 0.25), (0.5,)),
        Profile((-5.0, 3.0, 3.0), (0.1,) * 10),
        Profile((), ()),
    ],
)
def test_a_record_whose_profile_lies_has_no_drift_and_the_trainer_goes_on(profile, caplog):
    @story
    async def play(world):
        record = msgspec.structs.replace(champion(world), profile=profile)
        await world.decree(record, points_at(record))
        world.start(drift_new_labels=1)
        await world.label("a", "b", "c")
        await world.trained(1)
        answer = ClassifyResult(offset=1, after=0, crc=0, status=Status.OK, version=record.version, label="label 0")
        for _ in range(3):
            await world.producer.send_batch(TOPICS.results, 0, [Outgoing(encode_result(answer))] * 1000)
            await world.clock.sleep(5)
        assert not world.runs["t0"].done()

    play()
    assert any(getattr(record, "event", "") == "drift.unmeasurable" for record in caplog.records)
