"""A fault as data, what it can reach while it happens, and faults in a seeded random sequence."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from headrace_load.target import System
from headrace_load.waiting import until
from load.chaos.checker import read_answers, read_requests
from load.chaos.cluster import Cluster
from load.chaos.stream import Stream
from load.chaos.workers import Worker, Workers


class World:
    """One run. ``system`` goes the direct way and the workers' the way through the proxies."""

    def __init__(
        self,
        *,
        cluster: Cluster,
        system: System,
        workers: Workers,
        stream: Stream,
        rng: random.Random,
        folder: Path,
        model: Path,
    ) -> None:
        self.cluster = cluster
        self.system = system
        self.workers = workers
        self.stream = stream
        self.rng = rng
        self.folder = folder
        """Files of this run."""
        self.model = model
        """The artifact that the workers answer by when the fault begins."""
        self.notes: list[str] = []
        """What the table says beside the figures, such as who said that something was lost."""
        self.began_us = 0
        """When the fault began, microseconds since the Unix epoch."""
        self.kept: list[tuple[NDArray[np.void], NDArray[np.void]]] = []
        """Rows of requests and of answers that were in the logs before something was deleted, for the checker."""
        self.said: list[tuple[int, int, int]] = []
        """Ranges of requests of which somebody other than an answer said that they can't be answered, as of LOST."""

    def any_worker(self) -> Worker:
        """One of the running workers that own partitions, by chance.

        On a busy machine a worker can be ready and own none, and nothing ever happens at it.
        """
        return self.rng.choice(
            [worker for worker in self.workers.running.values() if worker.code is None and worker.owns_partitions]
        )

    async def staffed(self) -> None:
        """Workers that have ended are started again."""
        gone = [name for name, worker in self.workers.running.items() if worker.code is not None]
        await asyncio.gather(*(self.workers.start(name) for name in gone))

    def begins(self) -> None:
        """Now the fault begins: stalls and recovery are counted from here."""
        self.began_us = time.time_ns() // 1000

    async def keep(self) -> None:
        """Remember what both logs hold, before some of it is deleted."""
        self.kept.append((await read_requests(self.system), (await read_answers(self.system))[0]))

    async def wait(self, seconds: float) -> None:
        """Let the stream go on for a while: part of the fault itself, never a wait for something to be true."""
        await asyncio.sleep(seconds)

    async def moment(self, most_s: float = 1.0) -> None:
        """A random moment."""
        await asyncio.sleep(self.rng.uniform(0.0, most_s))

    async def until(self, true: Callable[[], bool], what: str, limit_s: float = 60.0) -> None:
        """Wait for a condition, named in words. Raises TimeoutError."""
        await until(true, what, limit_s)


Strike: TypeAlias = Callable[[World], Coroutine[Any, Any, None]]
"""Does the fault to a running world and mends what it broke, as an operator or a supervisor would.

It may draw from ``world.rng``. What it awaits is bounded. It raises what goes wrong beside the fault itself, and
AssertionError when something is not as the fault expects, such as an event that no worker said.
"""


class Fault(Struct, frozen=True, kw_only=True):
    """``title`` is its row in the table, a phrase in lower case.

    ``expect`` "kept": all that was acknowledged is answered, in order, once. "said": what can't be answered is lost to
    something outside, and workers or readers have said so; ``strike`` checks that they did, and ends the stream
    itself where it can't go on. ``workers`` run when it begins, with the settings ``sets``, as the command ``program``
    in place of `headrace`; with ``follows`` they follow the alias `champion`, which points at the run's model then.
    ``stall_s`` bounds the longest time without progress. One with ``server`` settings has a
    cluster of its own. ``sequence`` says whether it can happen in the middle of others.
    """

    name: str
    title: str
    about: Literal["worker", "network", "broker", "log", "trainer", "client", "sequence"]
    strike: Strike
    nodes: Literal[1, 3] = 1
    expect: Literal["kept", "said"] = "kept"
    workers: int = 2
    sets: Mapping[str, str] = {}
    program: tuple[str, ...] = ()
    follows: bool = False
    server: Mapping[str, str] | None = None
    stall_s: float | None = None
    rate: float = 400.0
    sequence: bool = True


PAIRS = 3
APART_S = 3.0


def sequence(faults: Sequence[Fault], nodes: int) -> Fault:
    """The fault of a random sequence out of ``faults`` on a cluster of so many nodes. Which, the seed says."""
    fitting = [fault for fault in faults if fault.sequence and fault.expect == "kept" and not fault.sets]
    fitting = [fault for fault in fitting if fault.server is None and fault.nodes <= nodes]
    of_workers = [fault for fault in fitting if fault.about == "worker"]
    of_others = [fault for fault in fitting if fault.about in ("network", "broker")]

    async def strike(world: World) -> None:
        for _ in range(PAIRS):
            pair = [world.rng.choice(of_workers), world.rng.choice(of_others)]
            world.rng.shuffle(pair)
            world.notes.append(" with ".join(fault.name for fault in pair))
            async with asyncio.TaskGroup() as both:
                both.create_task(pair[0].strike(world))
                both.create_task(_later(pair[1], world, world.rng.uniform(0.0, APART_S)))
            await world.cluster.whole()
            await world.staffed()

    return Fault(
        name=f"sequence-{nodes}",
        title=f"{PAIRS} random pairs of the above, {'three nodes' if nodes == 3 else 'one node'}",
        about="sequence",
        strike=strike,
        nodes=3 if nodes == 3 else 1,
        workers=2,
    )


async def _later(fault: Fault, world: World, wait_s: float) -> None:
    await world.wait(wait_s)
    await fault.strike(world)
