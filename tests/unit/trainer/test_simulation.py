"""Trainers that are killed, frozen and cut off at random over the twin: never do two lead, trainings never overlap, and
labels win.
"""

from __future__ import annotations

import asyncio
import random

import pytest

from headrace.kafka.election import Election
from headrace.kafka.interface import BrokerUnavailableError, ProducerDeadError
from headrace_schemas.records import ModelAlias, ModelVersion, Training, TrainingState
from tests.support.trainer_cluster import TrainerCluster
from tests.support.turned_loop import run_turned

SECONDS = 240.0
SEEDS = range(6)
NAMES = ("t0", "t1")


class Trouble:
    """Delays and errors at the points of every call; whole trainers die, freeze and lose the coordinator."""

    def __init__(self, world: TrainerCluster, rng: random.Random) -> None:
        self.world = world
        self.rng = rng
        self.on = True
        world.cluster.faults = self

    async def point(self, member: str, name: str) -> None:
        if member == "local" or not self.on:
            return
        dice = self.rng.random()
        if dice < 0.2:
            await self.world.clock.sleep(self.rng.uniform(0, 0.05))
        elif dice > 0.99 and not name.startswith("join"):
            dead = name.startswith("produce") and self.rng.random() < 0.3
            raise (ProducerDeadError if dead else BrokerUnavailableError)(f"told to fail at {name}")

    async def strike(self, name: str) -> None:
        kind = self.rng.choice(("kill", "freeze", "stop", "cut"))
        if kind == "freeze":
            self.world.cluster.node(name).freeze()
            await self.world.clock.sleep(self.rng.uniform(1, 15))
            self.world.cluster.node(name).thaw()
        elif kind == "cut":
            self.world.cluster.node(name).cut_coordinator()
            await self.world.clock.sleep(self.rng.uniform(1, 15))
            self.world.cluster.node(name).restore_coordinator()
        elif kind == "kill":
            self.world.kill(name)
        else:
            self.world.stops[name].set()
            await self.world.clock.sleep(self.rng.uniform(1, 15))

    def revive(self) -> None:
        """Start again whoever has ended: told to, killed, or because no broker answered at its start."""
        for name in NAMES:
            run = self.world.runs.get(name)
            if run is None or run.done():
                if run is not None and isinstance(error := run.exception(), Exception):
                    assert isinstance(error, BrokerUnavailableError)
                self.world.start(name)


async def never_two_lead(world: TrainerCluster) -> None:
    while True:
        leading = [name for name, run in world.runs.items() if world.trainers[name].leads and not run.done()]
        assert len(leading) <= 1, "two trainers lead"
        await world.clock.sleep(0.05)


def check(records: list[object]) -> None:
    """Read the models topic as an operator does."""
    running: str | None = None
    versions: set[str] = set()
    done: set[str] = set()
    for record in records:
        match record:
            case Training(state=TrainingState.RUNNING, id=id_):
                assert running in (None, id_), "two trainings at a time"
                running = id_
            case Training(id=id_, version=version):
                assert running in (None, id_), "an end of another training than the one that runs"
                running = None
                done.add(id_)
                assert version is None or version in versions
            case ModelVersion(version=version):
                versions.add(version)
            case ModelAlias(version=version):
                assert version in versions
    assert len(versions) == len(done), "a training gives one version, however often it was gone on with"


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_happens_to_trainers_trainings_follow_one_another_and_the_last_labels_are_learnt(seed):
    play(seed)


def test_the_judge_sees_a_trainer_that_goes_on_although_another_leads(monkeypatch):
    def unproven(_: Election) -> None:
        return

    async def never(_: Election) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(Election, "confirm", unproven)
    monkeypatch.setattr(Election, "lost", never)
    with pytest.raises(AssertionError, match=r"training.* than the one that runs|two trainings at a time"):
        play_all(SEEDS)


def play_all(seeds: range) -> None:
    for seed in seeds:
        play(seed)


def play(seed: int) -> None:
    async def main() -> None:
        world = TrainerCluster()
        rng = random.Random(seed)
        trouble = Trouble(world, rng)
        world.train_s = 12.0
        watching = asyncio.create_task(never_two_lead(world))
        try:
            trouble.revive()
            number = 0
            while world.clock.monotonic() < SECONDS:
                await world.label(*(f"id-{number + n}" for n in range(3)), partition=rng.randrange(2))
                number += 3
                await world.clock.sleep(rng.uniform(2, 20))
                if rng.random() < 0.5:
                    await trouble.strike(rng.choice(NAMES))
                trouble.revive()
            trouble.on = False
            trouble.revive()
            ends = [world.cluster.log(name).end for name in world.label_partitions()]
            await world.until(
                lambda: (done := world.trainings(TrainingState.DONE)) and [one.end for one in done[-1].offsets] == ends
            )
            assert world.alias().version == world.trainings(TrainingState.DONE)[-1].version
            check(world.models())
            assert not watching.done() or watching.result()
        finally:
            watching.cancel()
            await asyncio.wait_for(world.close(), 60)

    run_turned(main())
