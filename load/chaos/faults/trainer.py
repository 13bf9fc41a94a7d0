"""What happens to trainers while workers follow the champion: killed at every stage, frozen, woken too late.

They are real `headrace trainer` processes, with labels that are learnt in seconds. Whatever happens, a training ends as
one version and moves the champion once, and every worker takes it up.
"""

from __future__ import annotations

import functools
import random
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import msgspec

from headrace.client.dead_letters import read_dead_letters
from headrace.kafka.aio import AioKafkaCluster
from headrace.kafka.interface import Outgoing
from headrace_load.processes import headrace, over_ours, until
from headrace_load.target import System
from headrace_schemas.records import ModelAlias, ModelVersion, OffsetRange, Training, TrainingState
from load.chaos.cluster import PRODUCE, Way
from load.chaos.faults.actions import at, models_records, publish, publish_bytes, swapped
from load.chaos.faults.artifacts import no_records
from load.chaos.world import Fault, Strike, Worker, World, declares, started

FAULTS: list[Fault] = []
fault = declares(FAULTS)

LABELS = 300
LIMIT_S = 90.0
CLASSES = {
    "sport": "goal match team player league score",
    "money": "bank rate market share profit stock",
    "sky": "rain cloud wind storm snow frost",
}
FILLING = ("the", "a", "of", "in", "to")


class Trainers:
    """Starts trainers of one group. ``store`` is a folder; ``system`` connects through the proxies."""

    def __init__(self, system: System, group: str, folder: Path, stack: AsyncExitStack) -> None:
        self.store = folder / "store"
        self._system = system
        self._group = group
        self._folder = folder
        self._stack = stack

    async def start(self, name: str) -> Worker:
        """Start one without waiting for anything. Its name is its Kafka client id too. Raises ProgramError."""
        given = {
            "trainer.group": self._group,
            "trainer.store": str(self.store),
            "store.allowed": str(self._folder),
            "trainer.epochs": "2",
            "trainer.settle": "0",
            # What the workers begin with is made of random weights, so nearly every answer changes.
            "gate.max_changed": "1",
            # Beside a stream on a busy machine a latency says nothing.
            "gate.max_latency_us": "1000000",
            "gate.slower_by": "1000",
        }
        environ = over_ours(self._system.environment())
        trainer = await started(name, ("trainer",), sets=given, environ=environ, folder=self._folder)
        self._stack.push_async_callback(trainer.stop)
        return trainer


@asynccontextmanager
async def trainers(world: World) -> AsyncIterator[Trainers]:
    """Trainers that end with the block."""
    system = msgspec.structs.replace(world.system, bootstrap=world.cluster.behind)
    async with AsyncExitStack() as stack:
        yield Trainers(system, f"{world.system.models}-trainer", world.folder, stack)


async def publish_labels(world: World, count: int = LABELS) -> None:
    """Publish so many labels by `headrace labels`, other ones each time. Raises ProgramError."""
    file = world.folder / "labels.jsonl"
    file.write_bytes(b"\n".join(msgspec.json.encode(_label(world.rng)) for _ in range(count)))
    await headrace("labels", "publish", str(file), environment=world.system.environment())


def _label(rng: random.Random) -> dict[str, str]:
    label = rng.choice(list(CLASSES))
    words = rng.choices(CLASSES[label].split(), k=4) + rng.choices(FILLING, k=4)
    return {"text": " ".join(words), "label": label}


async def said(trainer: Worker, event: str, limit_s: float = LIMIT_S) -> None:
    """Wait until a trainer says that ``event`` happened. Raises TimeoutError, and ProgramError when it has ended."""
    await until(lambda: bool(trainer.events(event)), f"{event} of {trainer.name}", limit_s, trainer.check)


# Ranks are launched once the job is stored: a training without a job would begin anew and not go on.
FITTING = ("training.launched", "training.read", "training.epoch")
PACKING = ("training.compressed", "training.refit", "training.done", "version.published")
NO_JOB = "its trainer died before it had kept a job"


def killed_at(stages: Sequence[str]) -> Strike:
    """SIGKILL when the log says that a stage was reached. The next trainer goes on and is killed at the next stage."""

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


fault("trainer-killed-fitting", "killed as a training begins, has read, has fitted", follows=True)(killed_at(FITTING))
fault(
    "trainer-killed-packing",
    "killed as a training compresses, refits, is done, has published its version",
    follows=True,
)(killed_at(PACKING))


@fault("trainer-killed-publishing", "killed at each record, before and after it is in the log", follows=True)
async def killed_at_each_record(world: World) -> None:
    """SIGKILL as a record leaves for the models topic. Each of the three batches of a training is lost once, and
    arrives once without an acknowledgement.

    A training that has its first record and no job is given up, and another begins in its place.
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
        await trained(world, failed=1)
    (why,) = [one.error for one in await ended(world, 2) if one.state is TrainingState.FAILED]
    assert NO_JOB in (why or ""), f"the first training failed for another reason: {why}"
    world.notes.append("a training that had no job yet was begun anew, and that one survived four kills")


async def _kill(trainer: Worker, *, forward: bool) -> bool:
    await trainer.kill()
    return forward


@fault("trainer-leader-killed", "of two trainers the leader is killed", follows=True)
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


@fault("trainer-zombie", "stopped past its session in a training (SIGSTOP), then woken", follows=True)
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
        # Its ranks were done long before: a trainer that went on would have published by now.
        await said(zombie, "trainer.stands_by")
        await trained(world)
        assert not zombie.events("version.placed"), "a trainer that led no more moved the champion"
    world.notes.append("the one that was woken said that it leads no more, and published nothing")


@fault(
    "trainer-zombie-flush",
    "stopped while its last records hang on the way, which arrive after the next one's",
    follows=True,
)
async def records_too_late(world: World) -> None:
    """The leader is stopped while its last records are held back; they arrive after the other has ended the training.

    Nobody can call them back. They repeat what is in the log already.
    """
    await publish_labels(world)
    async with trainers(world) as of_run:
        zombie = await of_run.start("zombie")
        await said(zombie, "training.read")

        async def passes() -> bool:
            return True

        async def hangs() -> bool:
            zombie.signal(signal.SIGSTOP)
            heir = await of_run.start("heir")
            await said(heir, "training.resumed")
            await trained(world)
            return True

        await at(world, zombie, Way.TO_BROKER, PRODUCE, passes)  # its version
        await at(world, zombie, Way.TO_BROKER, PRODUCE, hangs)
        zombie.signal(signal.SIGCONT)
        await said(zombie, "trainer.lost")
        await said(zombie, "trainer.stands_by")
        champions = [one.version for one in await models_records(world.system, ModelAlias) if one.alias == "champion"]
        assert len(champions) == 3, f"the late record of the champion is not there: {champions}"
        assert champions[1] == champions[2], f"a trainer that led no more moved the champion to {champions[2]}"
        (last,) = {one.version for one in await ended(world)} - {None}
        assert all(len(worker.events("model.swapped")) == 1 for worker in world.workers.running.values())
        assert last == champions[1], f"the training made {last}, the champion is {champions[1]}"
    world.notes.append("the late records repeated what was there, and no worker loaded anything for them")


@fault("trainer-store-away", "no store when a training begins", follows=True)
async def store_away(world: World) -> None:
    """There is no store when a training begins, so it fails and says so. Once there is one, a training is ordered."""
    async with trainers(world) as of_run:
        trainer = await of_run.start("trainer")
        with without_store(await leading(trainer), of_run):
            await publish_labels(world)
            await said(trainer, "training.failed")
            assert str(of_run.store) in trainer.said(), "the trainer did not name its store"
        await headrace("models", "train", "--now", environment=world.system.environment())
        await trained(world, failed=1)
    world.notes.append("the training that failed named the store; the next one, when there was a store, succeeded")


@fault("trainer-rubbish", "rubbish on the models and labels topics while a training runs", follows=True)
async def rubbish(world: World) -> None:
    """The models topic holds rubbish and a training that has no job, the labels topic holds rubbish too.

    The training is given up, and another begins in its place.
    """
    unreadable = [Outgoing(value, f"rubbish-{number}".encode()) for number, value in enumerate(no_records(world))]
    await publish_bytes(world.system, world.system.models, *unreadable)
    await publish_bytes(world.system, world.system.labels, *unreadable)
    beyond = OffsetRange(partition=0, first=0, end=2**62)
    stray = Training(
        name="default", id="1", state=TrainingState.RUNNING, reason="of nobody", begun_at_ms=1, offsets=(beyond,)
    )
    await publish(world.system, stray)
    await publish_labels(world)
    async with trainers(world) as of_run:
        trainer = await of_run.start("trainer")
        await said(trainer, "training.abandoned")
        (abandoned,) = trainer.events("training.abandoned")
        assert (abandoned["training"], abandoned["why"]) == (stray.id, NO_JOB), f"the trainer gave up {abandoned}"
        await trained(world, failed=1)
        named = len(trainer.events("models.rubbish"))
        assert named == len(unreadable), f"{named} of {len(unreadable)} records of the models topic were named"
    cluster = AioKafkaCluster(world.system.kafka_settings())
    letters = [found.letter async for found in read_dead_letters(cluster, world.system.dead_letters)]
    of_labels = sum(letter.topic == world.system.labels for letter in letters)
    assert of_labels == len(unreadable), f"{of_labels} of {len(unreadable)} labels became dead letters"
    world.notes.append(f"{named} records were named, {of_labels} labels became dead letters, a training was given up")


async def leading(trainer: Worker) -> Worker:
    """``trainer``, once it leads. Raises TimeoutError, ProgramError."""
    await said(trainer, "trainer.leads")
    return trainer


@contextmanager
def without_store(trainer: Worker, of_run: Trainers) -> Iterator[None]:
    """Where the store's folder was, there is a file while the block runs. A trainer looks at it when it starts, too."""
    trainer.check()
    away = of_run.store.with_name("store-away")
    if there := of_run.store.exists():
        of_run.store.rename(away)
    of_run.store.write_bytes(b"a file where the folder should be")
    try:
        yield
    finally:
        of_run.store.unlink()
        if there:
            away.rename(of_run.store)


async def trained(world: World, *, failed: int = 0) -> None:
    """Wait until a training is done, after ``failed`` others, and every worker answers by its version.

    Raises TimeoutError, and AssertionError when there were more trainings, versions or moves of the champion.
    """
    trainings = await ended(world, failed + 1)
    last = trainings[-1]
    assert last.state is TrainingState.DONE, f"the training failed: {last.error}"
    begun = {one.id for one in trainings}
    assert len(begun) == failed + 1, f"these trainings were begun: {sorted(begun)}"
    # What the workers began with was published by hand, and moved the champion first.
    _, *versions = await models_records(world.system, ModelVersion)
    assert [one.version for one in versions] == [last.version], f"versions of one training: {versions}"
    champions = [one for one in await models_records(world.system, ModelAlias) if one.alias == "champion"]
    _, *moved = [one.version for one in champions]
    assert moved == [last.version], f"one training moved the champion to {moved}"
    await swapped(world, last.version)


async def ended(world: World, count: int = 1) -> list[Training]:
    """All records of trainings, once ``count`` trainings have ended. Raises TimeoutError."""

    async def look() -> list[Training]:
        found = await models_records(world.system, Training)
        return found if len({one.id for one in found if one.state is not TrainingState.RUNNING}) >= count else []

    return await until(look, f"the end of {count} trainings", LIMIT_S)
