"""What a fault can reach while it happens: the cluster, the workers, the stream, a seeded source of chance."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headrace_load.target import System
from headrace_load.waiting import until
from load.chaos.cluster import Cluster
from load.chaos.history import read_answers, read_requests
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
