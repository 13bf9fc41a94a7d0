"""One trainer leads, and only it publishes. When it dies, freezes, leaves or loses the coordinator, another goes on
with its training.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace

import pytest

from headrace.kafka.election import NotLeadingError
from headrace.kafka.interface import BrokerUnavailableError, Outgoing
from headrace.kafka.retry import PatientSender
from headrace_schemas.records import ModelAlias, ModelVersion, Training, TrainingState
from tests.support.places import ANYWHERE
from tests.support.trainer_cluster import NAME, SETTINGS, TOPICS, TrainerCluster, story


async def leader(world: TrainerCluster, *names: str) -> str:
    await world.until(lambda: [name for name in names if world.trainers[name].leads])
    return next(name for name in names if world.trainers[name].leads)


@story
async def test_a_second_trainer_stands_by_and_reads_no_labels(world):
    world.start("t0")
    await leader(world, "t0")
    world.start("t1")
    await world.until(lambda: world.trainers["t1"].unready is None)
    await world.label("a", "b", "c")
    await world.trained()
    await world.clock.sleep(60)
    assert [world.trainers[name].leads for name in ("t0", "t1")].count(True) == 1
    assert len(world.launched) == 1


@story
async def test_a_killed_trainers_training_is_gone_on_with_by_the_other_with_the_same_job(world):
    world.start("t0")
    world.train_s = 100.0
    await world.label("a", "b", "c")
    await world.until(lambda: world.launched)
    world.start("t1")
    world.kill("t0")
    # What comes later belongs to the next training, and settings of another trainer change nothing of this one.
    await world.label("d")
    killed = world.clock.monotonic()
    await world.until(lambda: len(world.launched) == 2)
    assert world.clock.monotonic() - killed < 12
    (done,) = await world.trained()
    assert world.launched[0] == world.launched[1]
    assert done.id == world.launched[0].id
    assert len([record for record in world.models() if isinstance(record, ModelVersion)]) == 1


@story
async def test_a_trainer_that_takes_over_tells_the_ranks_what_the_first_told_them_whatever_its_own_settings(world):
    world.start("t0", seed=1)
    world.train_s = 100.0
    await world.label("a", "b", "c")
    await world.until(lambda: world.launched)
    world.kill("t0")
    world.start("t1", seed=2, budget_points=9.0)
    await world.until(lambda: len(world.launched) == 2)
    assert world.launched[0] == world.launched[1]


@story
async def test_a_trainer_that_leaves_hands_over_at_once(world):
    world.start("t0")
    await leader(world, "t0")
    world.start("t1")
    await world.until(lambda: world.trainers["t1"].unready is None)
    first = await leader(world, "t0", "t1")
    other = "t1" if first == "t0" else "t0"
    await world.stop(first)
    left = world.clock.monotonic()
    assert await leader(world, other) == other
    assert world.clock.monotonic() - left < 3


@story
async def test_a_frozen_trainer_stops_its_training_and_publishes_nothing_once_another_leads(world):
    world.start("t0")
    world.train_s = 40.0
    await world.label("a", "b", "c")
    await world.until(lambda: world.launched)
    world.cluster.node("t0").freeze()
    world.start("t1")
    assert await leader(world, "t1") == "t1"
    await world.until(lambda: not world.trainers["t0"].leads)
    world.cluster.node("t0").thaw()
    (done,) = await world.trained()
    await world.clock.sleep(60)
    assert [training.state for training in world.trainings()] == [TrainingState.RUNNING, TrainingState.DONE]
    assert len(world.ended) == 1, "the frozen trainer's ranks were ended"
    moves = [record for record in world.models() if isinstance(record, ModelAlias)]
    # The first champion is the gate's baseline too.
    assert [(move.alias, move.version) for move in moves] == [("champion", done.version), ("baseline", done.version)]


class JoiningAgain:
    """Does ``trouble`` when t0 is about to join the group again, because t1 joined it."""

    def __init__(self, world: TrainerCluster, trouble: Callable[[], Awaitable[None]]) -> None:
        self.begun = False
        self._trouble = trouble
        world.cluster.faults = self

    async def point(self, member: str, name: str) -> None:
        await asyncio.sleep(0)
        if (member, name) == ("t0", "join.before"):
            self.begun = True
            await self._trouble()


async def never_both_lead_until_t1_does(world: TrainerCluster) -> None:
    while not world.trainers["t1"].leads:
        await world.clock.sleep(0.01)
    for _ in range(2000):
        assert not (world.trainers["t0"].leads and world.trainers["t1"].leads)
        await world.clock.sleep(0.01)


@story
async def test_a_trainer_that_loses_the_coordinator_in_a_rebalance_leads_no_more_when_another_does(world):
    async def cut():
        world.cluster.node("t0").cut_coordinator()
        raise BrokerUnavailableError("the request was lost")

    world.start("t0")
    await leader(world, "t0")
    joining = JoiningAgain(world, cut)
    world.start("t1")
    await world.until(lambda: joining.begun)
    assert world.trainers["t0"].leads, "nobody else can lead yet"
    await never_both_lead_until_t1_does(world)


@story
async def test_commits_that_the_group_takes_through_a_rebalance_do_not_prove_that_a_trainer_leads(world):
    async def hang():
        await world.clock.sleep(60)

    world.start("t0")
    await leader(world, "t0")
    JoiningAgain(world, hang)
    world.start("t1")
    await never_both_lead_until_t1_does(world)


@story
async def test_a_trainer_that_loses_the_coordinator_alone_stops_its_training_is_not_ready_and_comes_back(world):
    world.start("t0")
    world.train_s = 40.0
    await world.label("a", "b", "c")
    await world.until(lambda: world.launched)
    world.cluster.node("t0").cut_coordinator()
    world.start("t1")
    await never_both_lead_until_t1_does(world)
    assert world.trainers["t0"].unready
    (done,) = await world.trained()
    assert [training.state for training in world.trainings()] == [TrainingState.RUNNING, TrainingState.DONE]
    assert len(world.ended) == 1, "the ranks of the trainer that was cut off were ended"
    assert world.alias().version == done.version
    world.cluster.node("t0").restore_coordinator()
    await world.until(lambda: world.trainers["t0"].unready is None)
    await world.stop("t1")
    assert await leader(world, "t0") == "t0"


@story
async def test_a_trainer_whose_group_did_not_miss_it_leads_again_without_a_rebalance(world):
    world.start("t0")
    await leader(world, "t0")
    group = world.cluster.group(f"{SETTINGS.group}-election")
    generation = group.generation
    plain, group.heartbeat = group.heartbeat, lambda *_: False
    await world.until(lambda: not world.trainers["t0"].leads)
    group.heartbeat = plain
    assert await leader(world, "t0") == "t0"
    assert group.generation == generation


@story
async def test_nothing_is_handed_over_to_a_broker_that_answers_again_when_another_may_lead(world):
    tries = 0

    def leads():
        if tries > 1:
            raise NotLeadingError("another")

    async def point(member, name):
        nonlocal tries
        if name == "produce.before" and tries < 2:
            tries += 1
            raise BrokerUnavailableError("away")

    sender = PatientSender(world.cluster, world.clock, leads)
    world.cluster.faults = SimpleNamespace(point=point)
    with pytest.raises(NotLeadingError):
        await sender.send_batch(TOPICS.models, 0, [Outgoing(b"late")])
    assert tries == 2
    assert not world.models()


@story
async def test_a_trainer_that_dies_between_the_ranks_end_and_the_verdict_launches_nothing_again(world):
    judging = asyncio.Event()
    plain = world.decide

    async def hang(*_):
        judging.set()
        await asyncio.sleep(10_000)

    async def launch(job):
        outcome = await plain_launch(job)
        write_outcome(job, outcome)
        return outcome

    plain_launch = world.launch
    world.launch, world.decide = launch, hang
    world.start("t0")
    await world.label("a", "b", "c")
    await world.until(judging.is_set)
    world.kill("t0")
    world.decide = plain
    world.start("t1")
    (done,) = await world.trained()
    assert len(world.launched) == 1
    versions = [record for record in world.models() if isinstance(record, ModelVersion)]
    assert [version.version for version in versions] == [done.version]
    assert world.alias().name == NAME


@story
async def test_a_training_that_a_frozen_trainer_publishes_too_late_is_ended_by_the_one_that_leads(world):
    world.start("t0")
    await leader(world, "t0")
    await world.until(lambda: world.trainers["t0"].unready is None)
    late = Training(
        name=NAME, id="late", state=TrainingState.RUNNING, reason="late", begun_at_ms=world.clock.now_ms(), offsets=()
    )
    await world.decree(late)
    (failed,) = await world.trained(1, TrainingState.FAILED)
    assert (failed.id, failed.error) == ("late", "it was begun by a trainer that led no more")
    assert not world.launched


def write_outcome(job, outcome) -> None:
    """As rank 0 does."""
    import msgspec

    from headrace.learning.distributed.job import outcome_uri
    from headrace.model import store

    store.write(ANYWHERE.locate(outcome_uri(job)), msgspec.json.encode(outcome), "test")
