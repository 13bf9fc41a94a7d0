"""One run as a fault sees it: workers, which are real processes, the stream of requests and answers, and the cluster.

A fault is data and a coroutine; a seeded sequence of faults is a fault too.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from headrace.core.errors import UserError
from headrace.process.children import Child, child, headrace
from headrace_load.measure.audit import ANSWERED, read_rows
from headrace_load.measure.processes import (
    ROWS,
    MeasuringError,
    MeasuringProcess,
    Producers,
    ReaderProgress,
    Stop,
    producing,
    reading,
    tail,
)
from headrace_load.processes import POLL_S, over_ours, slowness, until, within
from headrace_load.target import System
from headrace_load.workload.spec import Bad, Deadlines, MadeTexts, Poisson, Workload, ZipfKeys
from load.chaos.checker import read_answers, read_requests
from load.chaos.cluster import Cluster

READY_S = 60.0
RESTART_S = 0.2
FINAL = frozenset({0, 2, 3})
"""Exit codes with which a new process would end too: done, wrong settings, refused."""


class Worker:
    """One process. What it writes is JSON lines."""

    def __init__(self, name: str, running: Child, stack: AsyncExitStack) -> None:
        self.name = name
        self.pid = running.pid
        self._running = running
        self._stack = stack

    @property
    def code(self) -> int | None:
        """What it ended with, None while it runs."""
        return self._running.code

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        if self.code is None:
            os.kill(self.pid, number)

    async def kill(self) -> None:
        """SIGKILL, as an out-of-memory killer would."""
        await self._running.kill()

    async def stop(self) -> None:
        """SIGTERM, and wait until it has drained and ended."""
        await self._stack.aclose()

    async def ended(self, limit_s: float) -> int:
        """Wait until it ends by itself. Raises TimeoutError."""
        async with within(limit_s, f"the end of {self.name}"):
            return await self._running.process.wait()

    @property
    def owns_partitions(self) -> bool:
        """Whether the group gave it partitions last, as it says."""
        return bool(_last_assigned(self))

    def events(self, name: str) -> list[dict[str, object]]:
        """The events of this start, of that name."""
        return [event for event in self._events() if event.get("event") == name]

    def said(self) -> str:
        """All that this start has written."""
        return self._running.printed().decode(errors="replace")

    def check(self) -> None:
        """Raises ProgramError when it has ended."""
        self._running.check()

    def error(self, reason: str) -> UserError:
        """An error with the end of its log."""
        return self._running.error(reason)

    def _events(self) -> list[dict[str, object]]:
        found = []
        for line in self.said().splitlines():
            try:
                found.append(msgspec.json.decode(line, type=dict[str, object]))
            except msgspec.DecodeError:
                continue  # not an event, or not whole yet
        return found


class Workers:
    """Starts workers and keeps them. ``program`` is the command in place of `python -m headrace`."""

    def __init__(
        self,
        system: System,
        folder: Path,
        *,
        group: str,
        model: str,
        sets: Mapping[str, str],
        program: Sequence[str] = (),
    ) -> None:
        self._system = system
        self.group = group
        self.running: dict[str, Worker] = {}
        self._folder = folder
        self._model = model
        self._sets = dict(sets)
        self._program = program

    async def start(
        self,
        name: str,
        *,
        sets: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        program: Sequence[str] = (),
        ready: bool = True,
    ) -> Worker:
        """Start a worker; with ``ready`` wait until its partitions are resumed.

        One that ends before that is started again, as a supervisor does, unless it says that it can't go on. Raises
        ProgramError.
        """
        arguments = ("worker", "--model", self._model, "--group", self.group, *options)
        deadline = time.monotonic() + READY_S * slowness()
        while True:
            worker = await started(
                name,
                arguments,
                sets={**self._sets, **(sets or {})},
                environ=over_ours({**self._system.environment(), **(environment or {})}),
                folder=self._folder,
                program=program or self._program,
            )
            self.running[name] = worker
            if not ready or await _resumed(worker, deadline):
                return worker

    async def leave(self, name: str) -> None:
        """Stop one for good (SIGTERM)."""
        await self.running.pop(name).stop()

    async def end(self) -> None:
        """Stop all (SIGTERM); paused ones go on first, so that they can. They stay known by their names."""
        for worker in self.running.values():
            worker.signal(signal.SIGCONT)
        await asyncio.gather(*(worker.stop() for worker in self.running.values()))


async def started(
    name: str,
    arguments: Sequence[str],
    *,
    sets: Mapping[str, str],
    environ: Mapping[str, str],
    folder: Path,
    program: Sequence[str] = (),
) -> Worker:
    """Start `headrace`, or ``program`` in its place, with nothing waited for; whoever starts it stops it.

    Its log, which is kept over several starts, and its Kafka client id bear its ``name``. Raises ProgramError.
    """
    given = {"kafka.client_id": name, "admin.port": "0", "log.format": "json", **sets}
    assigned = [part for key, value in given.items() for part in ("--set", f"{key}={value}")]
    log = folder / f"{name}.log"
    stack = AsyncExitStack()
    command = (*(program or headrace()), *assigned, *arguments)
    running = await stack.enter_async_context(child(command, log=log, name=name, environ=environ))
    return Worker(name, running, stack)


async def _resumed(worker: Worker, deadline: float) -> bool:
    """Wait until it has partitions, or hears that there are none for it; false when it ended before and may be started
    again. Raises ProgramError.
    """
    while not (worker.events("partition.resumed") or _last_assigned(worker) == []):
        if worker.code in FINAL or time.monotonic() > deadline:
            raise worker.error(f"it was not ready in time (its exit code: {worker.code})")
        if worker.code is not None:
            await asyncio.sleep(RESTART_S)
            return False
        await asyncio.sleep(POLL_S)
    return True


def _last_assigned(worker: Worker) -> object:
    assigned = worker.events("partitions.assigned")
    return assigned[-1].get("partitions") if assigned else None


PARTITIONS = 4
TEXTS = MadeTexts(words=2_000, distinct=1_000, bytes=120)
LONGEST_S = 600.0
"""No run takes so long: a stream ends when it is told to."""
OUTCOMES_S = 60.0
QUIET_S = 2.0
"""Longer than the reader takes to say that it has more."""


def workload(rate: float, seed: int) -> Workload:
    """Keyed requests at ``rate`` a second by Poisson; one in fifty is rubbish, one in twenty may expire."""
    return Workload(
        arrivals=Poisson(rate=rate),
        texts=TEXTS,
        seed=seed,
        seconds=LONGEST_S,
        warm_up=0.0,
        keys=ZipfKeys(keys=1_000, exponent=0.5),
        deadlines=Deadlines(timeout_ms=5_000, share=0.05),
        bad=Bad(share=0.02),
        settle=OUTCOMES_S,
    )


class Stream:
    """Producers and a reader that have begun. The reader goes on behind the producers' end."""

    def __init__(
        self,
        producers: Producers,
        reader: MeasuringProcess,
        folder: Path,
        *,
        system: System,
        begins: dict[int, int],
        stack: AsyncExitStack,
    ) -> None:
        self._producers = producers
        self._reader = reader
        self._folders = [folder]
        self._system = system
        self._begins = begins
        self._stack = stack
        self._sent: NDArray[np.void] | None = None

    @property
    def answered(self) -> int:
        """How many answers the reader has accepted, as far as it has told."""
        return self._reader.last.answers if isinstance(self._reader.last, ReaderProgress) else 0

    async def end(self) -> NDArray[np.void]:
        """Send no more; rows of audit.SENT once all outcomes are known. Raises MeasuringError."""
        if self._sent is None:
            self._producers.stop()
            self._sent = await self._producers.rows()
        return self._sent

    async def settle(self, patience_s: float) -> None:
        """Wait until the reader has as many answers as there are requests, and no more come.

        A fault may have published some of its own. Where answers are missing, none has to come for ``patience_s``.
        """
        expected = int((await self.end())["acked_us"].__ge__(0).sum())
        best, moved = -1, time.monotonic()
        while not self._reader.ended:
            if self.answered > best:
                best, moved = self.answered, time.monotonic()
            if time.monotonic() - moved > (QUIET_S if best >= expected else patience_s):
                return
            await asyncio.sleep(POLL_S)

    async def refused(self, limit_s: float) -> str:
        """Wait until the reader refuses to go on, and return why. Raises TimeoutError, AssertionError when it is well.

        :meth:`read_again` then does what it says.
        """
        try:
            async with within(limit_s, "the reader's refusal"):
                await self._reader.end()
        except MeasuringError as ended:
            return str(ended)
        raise AssertionError("the reader ended well")

    async def read_again(self) -> None:
        """Another reader begins at the beginning; of what it accepts counts what the ones before had not accepted."""
        folder = self._folders[0] / f"reader-{len(self._folders)}"
        folder.mkdir()
        self._folders.append(folder)
        self._reader = await self._stack.enter_async_context(reading(self._system, "log", folder, self._begins, None))

    async def seen(self) -> tuple[NDArray[np.void], str | None]:
        """Rows of audit.ANSWERED that the reader accepted, and why it ended before it was told, if it did."""
        error = None
        if not self._reader.ended:
            self._reader.order(Stop())
        try:
            await self._reader.end()
        except MeasuringError as ended:
            error = str(ended)
        return self.accepted(), error

    def accepted(self) -> NDArray[np.void]:
        """Rows of audit.ANSWERED of all readers, see :func:`continued`.

        What a running one accepted last is not written down yet.
        """
        return continued([read_rows([folder / ROWS], ANSWERED) for folder in self._folders])


def continued(readers: Sequence[NDArray[np.void]]) -> NDArray[np.void]:
    """What readers accepted that each began at the beginning: of a later one what is behind the highest of before."""
    rows, *others = readers
    for more in others:
        highest = {int(p): int(rows["offset"][rows["partition"] == p].max()) for p in np.unique(rows["partition"])}
        known = np.array([highest.get(int(partition), -1) for partition in more["partition"]], np.int64)
        rows = np.concatenate([rows, more[more["offset"] > known]])
    return rows


@asynccontextmanager
async def streaming(load: Workload, system: System, folder: Path, texts: Path) -> AsyncIterator[Stream]:
    """Begin to stream ``load``; what is still running ends with the block."""
    async with (
        tail(system) as end,
        AsyncExitStack() as stack,
        producing(load, system, folder, texts=texts, ids=False) as producers,
    ):
        reader = await stack.enter_async_context(reading(system, "log", folder, end.begins, None))
        producers.begin()
        yield Stream(producers, reader, folder, system=system, begins=end.begins, stack=stack)


@dataclass(kw_only=True)
class World:
    """One run. ``system`` goes the direct way and the workers' the way through the proxies."""

    cluster: Cluster
    system: System
    workers: Workers
    stream: Stream
    rng: random.Random
    folder: Path
    """Files of this run."""
    model: Path
    """The artifact that the workers answer by when the fault begins."""
    notes: list[str] = field(default_factory=list)
    """What the table says beside the figures, such as who said that something was lost."""
    began_us: int = 0
    """When the fault began, microseconds since the Unix epoch."""
    kept: list[tuple[NDArray[np.void], NDArray[np.void]]] = field(default_factory=list)
    """Rows of requests and of answers that were in the logs before something was deleted, for the checker."""
    said: list[tuple[int, int, int]] = field(default_factory=list)
    """Ranges of requests of which somebody other than an answer said that they can't be answered, as of LOST."""

    def any_worker(self) -> Worker:
        """One of the running workers that own partitions, by chance.

        On a busy machine a worker can be ready and own none, and nothing ever happens at it.
        """
        return self.rng.choice([worker for worker in self._alive() if worker.owns_partitions])

    def any_process(self) -> Worker:
        """One of the running workers by chance, also one that is still joining."""
        return self.rng.choice(self._alive())

    def _alive(self) -> list[Worker]:
        return [worker for worker in self.workers.running.values() if worker.code is None]

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

    async def until(self, true: Callable[[], bool | Awaitable[bool]], what: str, limit_s: float = 60.0) -> None:
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
    ``stall_s`` bounds the longest time without progress. ``sequence`` says whether it can happen in the middle of
    others.
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
    stall_s: float | None = None
    rate: float = 400.0
    sequence: bool = False


def declares(faults: list[Fault]) -> Callable[..., Callable[[Strike], Strike]]:
    """Return a decorator that adds a fault to ``faults``, whose strike is the function below it.

    It takes the fault's name and title, and its other fields by name; ``about`` is by default how the name begins.
    """

    def fault(name: str, title: str, **fields: Any) -> Callable[[Strike], Strike]:
        def declared(strike: Strike) -> Strike:
            found = {"about": name.partition("-")[0], "name": name, "title": title, "strike": strike, **fields}
            faults.append(Fault(**found))
            return strike

        return declared

    return fault


PAIRS = 3
APART_S = 3.0


def sequence(faults: Sequence[Fault], nodes: int) -> Fault:
    """The fault of a random sequence out of ``faults`` on a cluster of so many nodes. Which, the seed says."""
    fitting = [fault for fault in faults if fault.sequence and fault.nodes <= nodes and not fault.sets]
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
    )


async def _later(fault: Fault, world: World, wait_s: float) -> None:
    await world.wait(wait_s)
    await fault.strike(world)
