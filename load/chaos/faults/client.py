"""What happens to users of the client: publishers, readers and callers, killed or left waiting."""

from __future__ import annotations

import asyncio
import itertools
import signal
import sys
from collections import Counter
from collections.abc import Collection
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import numpy as np

from headrace.client import Client, NoAnswerError
from headrace.model.artifact import load
from headrace.model.backends.interface import open_backend
from headrace.process.children import Child, child
from headrace_load.processes import until, within
from headrace_schemas.records import Status
from load.chaos.checker import read_answers
from load.chaos.cluster import PRODUCE, Way
from load.chaos.faults.actions import at
from load.chaos.world import Fault, World, declares

FAULTS: list[Fault] = []
fault = declares(FAULTS)

KILLS = 4
CALLERS = 50
LIMIT_S = 60.0
LOOK_S = 0.2
TIMEOUTS_S = (1.0, 20.0)
"""How long callers wait, in seconds: shorter and longer than a killed worker's session."""
Place = tuple[int, int]
"""Partition and offset of a request."""


@fault("client-publisher-killed", "a publisher is killed four times")
async def publisher_killed(world: World) -> None:
    """A publisher is killed again and again: each request that it knew to be acknowledged is answered once, as it was
    sent.
    """
    file = world.folder / "acknowledged"
    program = (world.system.bootstrap, world.system.requests, world.system.results, str(file))
    for _ in range(KILLS):
        async with running(world, "publisher", *program) as publisher:
            await grows(world, file)
            await world.moment()
            await publisher.kill()
    acknowledged = {(partition, offset): crc for partition, offset, crc in rows(file)}
    answers = await answered(world, acknowledged.keys())
    assert answers.keys() >= acknowledged.keys(), "acknowledged requests of a killed publisher have no answer"
    wrong = [place for place, crc in acknowledged.items() if answers[place] != crc]
    assert not wrong, f"answers to other texts than were published: {wrong}"
    world.notes.append("all that a killed publisher knew of was answered")


@fault("client-reader-killed", "a reader is killed five times, once before repeats")
async def reader_killed(world: World) -> None:
    """A reader is killed and goes on behind the last answer that it wrote down; the last time before repeats of what
    it has read, by a worker that was stopped while its answers hung on the way.
    """
    file = world.folder / "read"
    program = (world.system.bootstrap, world.system.results, str(file))
    for _ in range(KILLS):
        async with running(world, "reading", *program) as reader:
            await grows(world, file)
            await world.moment()
            await reader.kill()
    async with running(world, "reading", *program) as reader:
        worker = world.any_worker()
        others = [other for other in world.workers.running.values() if other is not worker]

        async def act() -> bool:
            worker.signal(signal.SIGSTOP)
            await taken_over(world)
            # Nobody answers now, so the next answers in the log are the repeats.
            for other in others:
                other.signal(signal.SIGSTOP)
            await covered(world, [file])
            await reader.kill()
            return True

        await at(world, worker, Way.TO_BROKER, PRODUCE, act)
    await until(lambda: repeats(world), "a repeated answer in the log", LIMIT_S)
    for stopped in (worker, *others):
        stopped.signal(signal.SIGCONT)
    async with running(world, "reading", *program) as reader:
        await covered(world, [file])
        await reader.kill()
    again, holes = twice(file), sum(row[-1] for row in rows(file))
    assert not again, f"a reader that was started again was handed {again} answers twice"
    assert not holes, f"a reader that was started again was told of {holes} holes"
    world.notes.append(f"each answer once over {KILLS + 2} starts of the reader")


@fault("client-group", "readers of a group join, leave and are killed")
async def group_rebalances(world: World) -> None:
    """Members of a group join and leave, and nobody is handed what was marked; then members are killed."""
    group = f"{world.system.results}-readers"
    names = ("first", "second", "third")
    files = {name: world.folder / f"read-{name}" for name in names}

    def member(name: str) -> AbstractAsyncContextManager[Child]:
        return running(world, "reading", world.system.bootstrap, world.system.results, str(files[name]), group)

    async with member("first"):
        await grows(world, files["first"])
        async with member("second"):
            await grows(world, files["second"])
            async with member("third"):
                await grows(world, files["third"])
            await covered(world, files.values())
        await covered(world, files.values())
        again = twice(*files.values())
        assert not again, f"{again} answers were handed over twice by rebalances in which nobody died"
        for _ in range(KILLS):
            async with member("second") as second:
                await grows(world, files["second"])
                await world.moment()
                await second.kill()
        await covered(world, files.values())
    often = read(*files.values())
    strange = {place for place, count in often.items() if count > 1} - read(files["second"]).keys()
    assert not strange, f"{len(strange)} answers were handed over twice, and not to the member that was killed"
    world.notes.append("no answer twice where nobody died; after a kill, only answers of the dead member")


@fault("client-awaiting", "workers killed under fifty awaiting callers")
async def awaited(world: World) -> None:
    """Fifty callers await answers while workers are killed: each gets its own, or hears in time that none came."""
    backend = open_backend("cpu", load(str(world.model)))
    labels = load(str(world.model)).labels
    over = asyncio.Event()
    told: Counter[str] = Counter()

    async def calls(client: Client, caller: int) -> None:
        for number in itertools.count():
            if over.is_set():
                return
            name = f"caller {caller} call {number}"
            text = f"word{world.rng.randrange(2000)} of {name}"
            try:
                answer = await client.classify(text, id=name, timeout=world.rng.choice(TIMEOUTS_S))
            except NoAnswerError:
                told["nothing"] += 1
                continue
            assert answer.id in (name, None), f"{name} was given the answer to {answer.id}"
            if answer.status is Status.OK:
                right = labels[int(backend.classify([text.encode()]).labels[0])]
                assert (answer.id, answer.label) == (name, right), f"{name} was told {answer.label}, and it is {right}"
            told[answer.status] += 1
            await world.moment(0.5)

    async def kills() -> None:
        for _ in range(KILLS):
            worker = world.any_worker()
            await worker.kill()
            await world.workers.start(worker.name)
        over.set()

    async with (
        within(2 * LIMIT_S, "the end of all calls"),
        asyncio.TaskGroup() as together,
        world.system.client() as client,
    ):
        together.create_task(kills())
        await asyncio.gather(*(calls(client, caller) for caller in range(CALLERS)))
    assert told[Status.OK] >= CALLERS, f"callers were told {dict(told)}"
    world.notes.append("each call got its own answer, or heard in time that none came")


def running(world: World, program: str, *arguments: str) -> AbstractAsyncContextManager[Child]:
    """A user's program while the block runs; at its end SIGTERM."""
    log = world.folder / f"{program}.log"
    return child((sys.executable, "-m", "load.chaos.users", program, *arguments), log=log, name=program)


def written(file: Path) -> int:
    """How much a program has written down."""
    return file.stat().st_size if file.exists() else 0


def read(*files: Path) -> Counter[Place]:
    """How often the programs that wrote the files were handed each answer."""
    return Counter((row[0], row[1]) for file in files for row in rows(file))


def rows(file: Path) -> list[list[int]]:
    """The whole lines of a file that is perhaps being written."""
    data = file.read_bytes() if file.exists() else b""
    return [[int(part) for part in line.split()] for line in data[: data.rfind(b"\n") + 1].splitlines()]


async def grows(world: World, file: Path) -> None:
    """Wait until a program writes."""
    before = written(file)
    await world.until(lambda: written(file) > before, f"another line in {file.name}")


async def answered(world: World, least: Collection[Place]) -> dict[Place, int]:
    """CRC-32s of the answers that a reader is handed from the beginning up to now, and until ``least`` are there.

    Raises TimeoutError.
    """
    found: dict[Place, int] = {}
    async with (
        within(LIMIT_S, "the handing over of all answers to a reader from the beginning"),
        world.system.client() as client,
        client.reader("beginning") as reader,
    ):
        ends = await reader.ends()
        while any(reader.positions[number].position < end for number, end in ends.items()) or not found.keys() >= set(
            least
        ):
            for answer in await reader.read():
                place = (answer.partition, answer.result.offset)
                assert place not in found, f"a reader was handed the answer to {place} twice"
                assert answer.hole is None, f"a reader was told of a hole before {place}"
                found[place] = answer.result.crc
    return found


async def taken_over(world: World) -> None:
    """Wait until somebody has gone on in every partition. Raises TimeoutError."""
    async with (
        within(LIMIT_S, "a new answer in every partition"),
        world.system.client() as client,
        client.reader() as reader,
    ):
        before = await reader.ends()
        while any(end == before[number] for number, end in (await reader.ends()).items()):
            await world.wait(LOOK_S)


async def repeats(world: World) -> int:
    """How many answers in the log are to a request that is answered there already."""
    log, _ = await read_answers(world.system)
    return len(log) - len(np.unique(log[["partition", "offset"]]))


async def covered(world: World, files: Collection[Path]) -> None:
    """Wait until the programs that wrote the files were handed all answers that there are now. Raises TimeoutError."""
    everything = await answered(world, frozenset())
    await world.until(lambda: read(*files).keys() >= everything.keys(), "the handing over of all answers")


def twice(*files: Path) -> int:
    """How many answers were handed over more than once, each time counted."""
    return sum(count - 1 for count in read(*files).values())
