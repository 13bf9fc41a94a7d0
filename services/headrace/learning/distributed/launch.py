"""Run the ranks of a training as processes, and return their outcome.

When a rank dies, all of them are started again and go on from the last checkpoint. Each rank is told its job by its
standard input, so no file that another user could have written takes part. One rank is started like many.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import uuid
from asyncio.subprocess import PIPE, STDOUT, Process
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import psutil

from headrace.core.errors import UserError
from headrace.learning.distributed.job import Job, Outcome, outcome_uri, read_outcome
from headrace.learning.distributed.rendezvous import RANK_FAILED, AcrossMachines, Assignment, OnThisMachine
from headrace.model.places import Places
from headrace.process.child_process import ending_with_parent
from headrace.process.logs import event
from headrace.security.private_folder import PrivateFolder

LOG_TAIL_LINES = 15
LONGEST_LINE = 64 * 1024


class Output:
    """Takes in what the ranks write, line by line, and how they end, and keeps of it what explains a failure."""

    def __init__(self) -> None:
        self._reasons: dict[int, str] = {}
        self._death: str | None = None
        self._tail: deque[str] = deque(maxlen=LOG_TAIL_LINES)
        self.lasting: str | None = None
        """The first reason that lasts, if a rank gave one."""

    def take(self, rank: int, line: bytes) -> dict[str, Any] | None:
        """The event that ``line`` of ``rank`` is, or None."""
        event = _event(line)
        if event is None:
            self._tail.append(line.decode(errors="replace"))
        elif event["event"] == RANK_FAILED:
            reason = self._reasons[rank] = str(event.get("error"))
            if self.lasting is None and event.get("lasting"):
                self.lasting = reason
        return event

    def ended(self, rank: int, code: int) -> None:
        """``rank`` ended by itself with ``code``, as asyncio gives it."""
        if code and rank not in self._reasons and self._death is None:
            how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
            self._death = f"rank {rank} ended {how}"

    def why(self) -> str:
        """Why the ranks ended: a reason that lasts; else the death of one that gave no reason, and what others said.

        A rank whose neighbour was killed knows of nothing but a closed connection.
        """
        if self.lasting is not None:
            return self.lasting
        found = [] if self._death is None else [self._death]
        if self._reasons:
            found.append(next(iter(self._reasons.values())))
        return "; ".join(found) or "the ranks gave no reason"

    def last_lines(self) -> str:
        """What they wrote last beside their events, in whoever's words: for the terminal, and for no record."""
        return "\n".join(self._tail)


async def lines(stream: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """The lines of ``stream`` without their ends; one longer than LONGEST_LINE bytes comes in pieces."""
    rest = b""
    while data := await stream.read(LONGEST_LINE):
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            yield line
        if len(rest) >= LONGEST_LINE:
            yield rest
            rest = b""
    if rest:
        yield rest


def _event(line: bytes) -> dict[str, Any] | None:
    if not line.startswith(b"{"):
        return None
    try:
        event = msgspec.json.decode(line, type=dict[str, Any])
    except msgspec.DecodeError:
        return None
    return event if "event" in event else None


GRACE_S = 10.0

_LOOPBACK = "127.0.0.1"

# Ranks compute in their own threads; a library's pool beside them would take the cores that other ranks use.
_ENVIRONMENT = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")

OnEvent = Callable[[Mapping[str, Any]], None]


class TrainingFailedError(UserError):
    """A training that came to no end; the message has the ranks' own reason."""


class Nodes(msgspec.Struct, frozen=True, kw_only=True):
    """One training on several machines: this is machine ``number`` of ``count``, counted from 0.

    Each calls :func:`launch` with the same job, whose URIs all of them reach, and as many ranks. ``endpoint`` is the
    host:port where the others reach machine 0, ``address`` this machine's own IP address, by which the others reach it.
    Machine 0 listens on its ``address`` and the port of ``endpoint``. The machines have to trust each other and their
    network: the exchange asks nobody who he is.
    """

    count: int
    number: int
    endpoint: str
    address: str


async def launch(
    job: Job,
    *,
    ranks: int,
    program: Sequence[str],
    environ: Mapping[str, str],
    folder: PrivateFolder,
    places: Places,
    nodes: Nodes | None = None,
    restarts: int = 3,
    on_event: OnEvent = lambda _: None,
) -> Outcome:
    """Train ``job`` with ``ranks`` processes on this machine and return the outcome.

    ``program`` is a module with its arguments, to which ``rank`` is added: ``headrace --set ...``. ``environ`` is what
    the ranks get of the environment. ``folder`` gets the ranks' log, which is left there only when they fail.
    ``places`` are those where the outcome may lie; the ranks have their own from their settings. A rank that dies makes
    all start again, ``restarts`` times at most. ``on_event`` is told of each event that a rank logs. A call that is
    cancelled ends the ranks, in GRACE_S seconds at the latest. Raises TrainingFailedError, and UnsafeFolderError for a
    folder that others can write.
    """
    if nodes is not None:
        why = "whoever reaches the ranks' sockets there can end the training and change its weights"
        event("exchange.unauthenticated", level="warning", training=job.id, address=nodes.address, why=why)
    name = f"{job.id}.log"
    ranks_of = _Ranks(job, ranks, program, environ, folder, nodes, on_event)
    for left in range(restarts, -1, -1):
        with await asyncio.to_thread(_appended, folder, name) as log:
            output = await ranks_of.run(log)
        if output is None:
            break
        # One can fail in taking leave, when the work of all is done.
        if await asyncio.to_thread(read_outcome, job, places) is not None:
            break
        # Other machines can't be told of a reason that lasts, so there the restarts run out, on all of them.
        if left == 0 or (output.lasting is not None and nodes is None):
            failed = TrainingFailedError(
                f"Training {job.id} failed: {output.why()}\nThe log of its ranks is {folder.path / name}"
            )
            if last := output.last_lines():
                failed.add_note(f"They wrote last:\n{last}")
            raise failed
        event("training.restarted", level="warning", training=job.id, why=output.why(), restarts_left=left - 1)
    outcome = await asyncio.to_thread(_outcome, job, places)
    # Of a training that went well there is nothing to look up in it.
    await asyncio.to_thread((folder.path / name).unlink, missing_ok=True)
    return outcome


class _Ranks:
    """The ranks of this machine, which can be run again and again."""

    def __init__(
        self,
        job: Job,
        ranks: int,
        program: Sequence[str],
        environ: Mapping[str, str],
        folder: PrivateFolder,
        nodes: Nodes | None,
        on_event: OnEvent,
    ) -> None:
        self._job = job
        self._count = ranks
        self._command = (sys.executable, "-m", *program, "rank")
        address = _LOOPBACK if nodes is None else nodes.address
        # gloo listens on this interface's address alone. Left to itself it takes that of the host's name.
        self._environ = {**environ, **_ENVIRONMENT, "GLOO_SOCKET_IFNAME": _interface(address)}
        self._folder = folder
        self._nodes = nodes
        self._on_event = on_event

    async def run(self, log: BinaryIO) -> Output | None:
        """Run them to their end, and return what they wrote, should one of them have failed: then none is left."""
        output = Output()
        meeting = await asyncio.to_thread(self._meeting)
        processes: list[Process] = []
        follows: dict[asyncio.Task[int], int] = {}
        try:
            for told in self._assignments(meeting):
                process = await asyncio.create_subprocess_exec(
                    *ending_with_parent(self._command),
                    env=self._environ,
                    stdin=PIPE,
                    stdout=PIPE,
                    stderr=STDOUT,
                    start_new_session=True,  # keeps the terminal's Ctrl-C for us to act on
                )
                processes.append(process)
                follows[asyncio.create_task(self._follow(process, told, output, log))] = told.rank
            event("training.launched", training=self._job.id, pids=[process.pid for process in processes])
            running, failed = set(follows), False
            while running and not failed:
                ended, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                failed = any(task.result() for task in ended)
        finally:
            ended_by_us = await _end(processes)
            # What they wrote last is read to its end: it may be the reason.
            await asyncio.gather(*follows, return_exceptions=True)
            if isinstance(meeting, OnThisMachine):
                await asyncio.to_thread(_remove, meeting)
        if not failed:
            return None
        for (task, rank), process in zip(follows.items(), processes, strict=True):
            if process not in ended_by_us:
                output.ended(rank, task.result())
        return output

    def _meeting(self) -> OnThisMachine | AcrossMachines:
        """Where the ranks of one start find each other: a file anew each time, as the dead left their addresses in the
        one before.
        """
        if self._nodes is None:
            with self._folder.descriptor():
                return OnThisMachine(str(self._folder.path / f"{self._job.id}-{uuid.uuid4().hex}.ranks"))
        host, _, port = self._nodes.endpoint.rpartition(":")
        if not host or not port.isdecimal():
            raise TrainingFailedError(f"The rendezvous {self._nodes.endpoint!r} is no HOST:PORT")
        return AcrossMachines(host=host.strip("[]"), port=int(port), listen=self._nodes.address)

    def _assignments(self, meeting: OnThisMachine | AcrossMachines) -> list[Assignment]:
        machines, first = (1, 0) if self._nodes is None else (self._nodes.count, self._nodes.number * self._count)
        return [
            Assignment(job=self._job, rank=rank, world=machines * self._count, meeting=meeting)
            for rank in range(first, first + self._count)
        ]

    async def _follow(self, process: Process, told: Assignment, output: Output, log: BinaryIO) -> int:
        """Tell a rank what to do, read what it writes, and return its exit code."""
        assert process.stdin is not None  # noqa: S101 - they are pipes
        assert process.stdout is not None  # noqa: S101
        telling = asyncio.create_task(_tell(process.stdin, msgspec.json.encode(told)))
        async for line in lines(process.stdout):
            log.write(line + b"\n")
            if (said := output.take(told.rank, line)) is not None:
                self._on_event(said)
        await telling
        return await process.wait()


async def _tell(stream: asyncio.StreamWriter, data: bytes) -> None:
    # A rank that ends before it has read says why by its exit code and what it wrote.
    with suppress(BrokenPipeError, ConnectionResetError):
        stream.write(data)
        await stream.drain()
        stream.close()
        await stream.wait_closed()


async def _end(processes: Sequence[Process]) -> list[Process]:
    """End the ranks that live still, and return those that ended by this."""
    alive = [process for process in processes if process.returncode is None]
    for process in alive:
        with suppress(ProcessLookupError):
            process.terminate()
    try:
        async with asyncio.timeout(GRACE_S):
            await asyncio.gather(*(process.wait() for process in alive))
    except TimeoutError:
        for process in alive:
            with suppress(ProcessLookupError):
                process.kill()
        await asyncio.gather(*(process.wait() for process in alive))
        return alive
    return [process for process in alive if process.returncode == -signal.SIGTERM]


def _appended(folder: PrivateFolder, name: str) -> BinaryIO:
    return os.fdopen(folder.open(name, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab")


def _remove(meeting: OnThisMachine) -> None:
    Path(meeting.path).unlink(missing_ok=True)


def _interface(address: str) -> str:
    """The network interface that has ``address``. Raises TrainingFailedError when none has."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(one.address == address for one in addresses):
            return name
    raise TrainingFailedError(
        f"No network interface of this machine has the address {address}; `ip address` lists them"
    )


def _outcome(job: Job, places: Places) -> Outcome:
    uri = outcome_uri(job)
    try:
        outcome = read_outcome(job, places)
    except msgspec.DecodeError as error:
        raise TrainingFailedError(f"Training {job.id}: {uri} is no outcome of a training") from error
    if outcome is None:
        raise TrainingFailedError(f"Training {job.id} ended without its outcome, {uri}")
    return outcome
