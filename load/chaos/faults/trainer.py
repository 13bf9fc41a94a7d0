"""What happens to trainers while workers follow the champion: killed at every stage, frozen, woken too late.

Whatever happens, a training ends as one version and moves the champion once, and every worker takes it up.
"""

from __future__ import annotations

import asyncio
import functools
import signal
from collections.abc import Sequence

from headrace_schemas.records import ModelAlias, ModelVersion, Training, TrainingState
from load.chaos.fault import Fault, Strike
from load.chaos.faults.points import at
from load.chaos.frames import PRODUCE
from load.chaos.proxy import Way
from load.chaos.registry import models_records
from load.chaos.trainers import LIMIT_S, publish_labels, said, trainers
from load.chaos.workers import Worker
from load.chaos.world import World

FITTING = ("training.begun", "training.read", "training.epoch")
PACKING = ("training.compressed", "training.refit", "training.done", "version.published")
LOOK_S = 0.5


def killed_at(stages: Sequence[str]) -> Strike:
    """SIGKILL when the log says that a stage was reached; the next trainer goes on, to be killed at the next one."""

    async def strike(world: World) -> None:
        await publish_labels(world)
        async with trainers(world) as of_run:
            for number, stage in enumerate(stages):
                trainer = await of_run.start(f"t{number}")
                await said(trainer, stage)
                await trainer.kill()
            await of_run.start("last")
            await trained(world)
        world.notes.append(f"one training survived {len(stages)} kills")

    return strike


async def killed_at_each_record(world: World) -> None:
    """SIGKILL as a record leaves for the models topic: each of the three batches of a training, once so that it does
    not arrive and once so that it does and nobody is told.
    """
    await publish_labels(world)
    async with trainers(world) as of_run:
        for batch in ("begun", "version", "end"):
            for forward in (False, True):
                trainer = await of_run.start(f"{batch}-{'arrives' if forward else 'vanishes'}")
                if batch == "version" and not forward:
                    await said(trainer, "training.read")  # its ranks have to train before there is a version
                await at(world, trainer, Way.TO_BROKER, PRODUCE, functools.partial(_kill, trainer, forward=forward))
        await of_run.start("last")
        await trained(world)
    world.notes.append("one training survived six kills")


async def _kill(trainer: Worker, *, forward: bool) -> bool:
    await trainer.kill()
    return forward


async def leader_killed(world: World) -> None:
    """Of two trainers the one that leads is killed, and the other trains."""
    async with trainers(world) as of_run:
        first = await of_run.start("first")
        await said(first, "trainer.leads")
        second = await of_run.start("second")
        await said(second, "trainer.stands_by")
        await publish_labels(world)
        await said(first, "training.launched")
        assert not second.events("trainer.leads"), "two trainers led"
        await first.kill()
        await said(second, "training.resumed")
        await trained(world)


async def woken_too_late(world: World) -> None:
    """The leader is stopped past its session while its ranks train, and woken when the other has ended the training."""
    await publish_labels(world)
    async with trainers(world) as of_run:
        zombie = await of_run.start("zombie")
        await said(zombie, "training.read")
        zombie.signal(signal.SIGSTOP)
        heir = await of_run.start("heir")
        await said(heir, "training.resumed")
        await trained(world)
        zombie.signal(signal.SIGCONT)
        await said(zombie, "trainer.lost")
        # It would have published by now what its ranks had made long before.
        await said(zombie, "trainer.stands_by")
        await trained(world)
        assert not zombie.events("version.placed"), "a trainer that led no more moved the champion"
    world.notes.append("the one that was woken said that it leads no more, and published nothing")


async def trained(world: World) -> None:
    """Wait until the one training is done and every worker answers by what came of it.

    Raises TimeoutError, and AssertionError when there was more than one training, version or move of the champion.
    """
    trainings = await ended(world)
    last = trainings[-1]
    assert last.state is TrainingState.DONE, f"the training failed: {last.error}"
    assert len({one.id for one in trainings}) == 1, f"several trainings were begun: {[one.id for one in trainings]}"
    # What the workers began with was published by hand, and moved the champion first.
    _, *versions = await models_records(world.system, ModelVersion)
    assert [one.version for one in versions] == [last.version], f"versions of one training: {versions}"
    champions = [one for one in await models_records(world.system, ModelAlias) if one.alias == "champion"]
    _, *moved = [one.version for one in champions]
    assert moved == [last.version], f"one training moved the champion to {moved}"
    await world.until(lambda: all(swapped_to(worker, last.version) for worker in world.workers.running.values()))


async def ended(world: World) -> list[Training]:
    """Every record of the training once it has ended. Raises TimeoutError."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            found = await models_records(world.system, Training)
            if found and found[-1].state is not TrainingState.RUNNING:
                return found
            await world.wait(LOOK_S)


def swapped_to(worker: Worker, version: str | None) -> bool:
    """Whether the worker has swapped to ``version`` and to nothing else since, as it says."""
    swaps = worker.events("model.swapped")
    return bool(swaps) and swaps[-1]["version"] == version


FAULTS = (
    Fault(
        name="trainer-killed-fitting",
        title="killed as a training begins, has read, has fitted",
        about="trainer",
        strike=killed_at(FITTING),
        follows=True,
        sequence=False,
    ),
    Fault(
        name="trainer-killed-packing",
        title="killed as a training compresses, refits, is done, has published its version",
        about="trainer",
        strike=killed_at(PACKING),
        follows=True,
        sequence=False,
    ),
    Fault(
        name="trainer-killed-publishing",
        title="killed at each record, before and after it is in the log",
        about="trainer",
        strike=killed_at_each_record,
        follows=True,
        sequence=False,
    ),
    Fault(
        name="trainer-leader-killed",
        title="of two trainers the leader is killed",
        about="trainer",
        strike=leader_killed,
        follows=True,
        sequence=False,
    ),
    Fault(
        name="trainer-zombie",
        title="stopped past its session in a training (SIGSTOP), then woken",
        about="trainer",
        strike=woken_too_late,
        follows=True,
        sequence=False,
    ),
)
