"""A machine that helps with trainings: when it starts its share, when it ends it, and when it starts it again."""

from __future__ import annotations

import asyncio

import msgspec
from prometheus_client import CollectorRegistry

from headrace.core.errors import UserError
from headrace.learning.distributed.job import Job, outcome_uri
from headrace.model import store
from headrace.process.metrics import BrokerGauge
from headrace.trainer.remote_node import Helper
from headrace.trainer.store import TrainingStore
from tests.support.places import ANYWHERE
from tests.support.trainer_cluster import NAME, TOPICS, TrainerCluster, story
from tests.support.turned_tests import after_a_moment


class Shares:
    """Each share of a job: running until it is cancelled, or breaks off."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.running: list[asyncio.Future[None]] = []

    async def launch(self, job: Job):
        self.begun.append(job.id)
        self.running.append(asyncio.get_running_loop().create_future())
        await self.running[-1]


def help_with(world: TrainerCluster, shares: Shares) -> asyncio.Event:
    stop = asyncio.Event()
    helper = Helper(
        name=NAME,
        cluster=world.cluster.node("helper"),
        models=TOPICS.models,
        store=TrainingStore(world.store, NAME),
        launch=shares.launch,
        offload=after_a_moment,
        clock=world.clock,
        broker=BrokerGauge(CollectorRegistry()),
    )
    world.runs["helper"], world.stops["helper"] = asyncio.create_task(helper.run(stop)), stop
    return stop


@story
async def test_a_helper_runs_its_share_of_a_training_and_ends_it_with_the_training(world):
    shares = Shares()
    help_with(world, shares)
    world.start()
    world.train_s = 30.0
    await world.label("a", "b", "c")
    await world.until(lambda: shares.begun)
    assert shares.begun == [world.launched[0].id]
    await world.trained()
    await world.until(shares.running[0].cancelled)
    await world.clock.sleep(30)
    assert len(shares.begun) == 1


@story
async def test_a_share_that_breaks_off_is_begun_again_while_the_training_has_no_outcome(world):
    shares = Shares()
    help_with(world, shares)
    world.start()
    world.train_s = 100.0
    await world.label("a", "b", "c")
    await world.until(lambda: len(shares.running) == 1)
    shares.running[0].set_exception(UserError("the trainer's machine is gone"))
    await world.until(lambda: len(shares.running) == 2)
    (job,) = world.launched
    world.train_s = 0.0
    outcome = await world.launch(job)
    store.write(ANYWHERE.locate(outcome_uri(job)), msgspec.json.encode(outcome), "test")
    await world.clock.sleep(10)
    assert not shares.running[1].done(), "the machines end together"
    shares.running[1].set_exception(UserError("its end was late"))
    await world.clock.sleep(10)
    assert len(shares.begun) == 2


@story
async def test_a_helper_that_stops_ends_its_share(world):
    shares = Shares()
    help_with(world, shares)
    world.start()
    world.train_s = 100.0
    await world.label("a", "b", "c")
    await world.until(lambda: shares.running)
    await world.stop("helper")
    assert shares.running[0].cancelled()
