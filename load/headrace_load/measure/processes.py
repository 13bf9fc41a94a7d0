"""The harness's producers and reader as processes: the parent's side, and the protocol between the two.

The parent writes a job into a file, and orders to the child's standard input. The child reports its progress on its
standard output. Both write one JSON object a line. The child ends when its input closes, because the parent gave up or
is gone.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import msgspec
import numpy as np
import uvloop
from aiokafka import TopicPartition
from msgspec import Struct
from numpy.typing import NDArray

from headrace.client import AnswerReader
from headrace.process.children import Child, child
from headrace_load.measure.audit import ANSWERED, SENT, Answers, read_rows
from headrace_load.processes import slowness
from headrace_load.target import System
from headrace_load.workload.spec import Workload

J = TypeVar("J", bound=Struct)

NEW_OBJECTS = 50_000
"""How many objects are made before Python's garbage collector runs. At the default of 700 it runs all the time."""


class ProducerJob(Struct, frozen=True, kw_only=True):
    """``texts`` is a file with a JSON list; the rows of audit.SENT go to the file ``rows``."""

    workload: Workload
    producer: int
    system: System
    texts: str
    ids: bool
    rows: str


class ReaderJob(Struct, frozen=True, kw_only=True):
    """``positions`` is where to begin in each results partition, and ``ends`` where to end. None reads live until the
    order to stop.

    The rows of audit.ANSWERED go to the file ``rows``.
    """

    system: System
    answers: Answers
    positions: dict[int, int]
    ends: dict[int, int] | None
    rows: str


class Ready(Struct, frozen=True, tag="ready"):
    """The child is prepared."""


class ProducerProgress(Struct, frozen=True, tag="told", kw_only=True):
    """What a producer has done so far. ``error`` is Kafka's message when it last refused records."""

    due: int
    sent: int
    acked: int
    failed: int
    late_p99_us: float | None
    """Of the last second; None when nothing was acknowledged in it."""
    complete: bool
    """All requests of its part were sent."""
    error: str | None = None


class ReaderProgress(Struct, frozen=True, tag="read", kw_only=True):
    """What a reader has read so far: records of the log, and accepted answers among them."""

    records: int
    answers: int
    error: str | None = None


class Begin(Struct, frozen=True, tag="begin"):
    """The run begins at ``at_us``, microseconds since the Unix epoch."""

    at_us: int


class Stop(Struct, frozen=True, tag="stop"):
    """Stop sending or reading, write the rows, and end."""


Line = Ready | ProducerProgress | ReaderProgress
Order = Begin | Stop


class Parent:
    """The other end of the two pipes."""

    def __init__(self, orders: asyncio.StreamReader) -> None:
        self._orders = orders

    def say(self, line: Line) -> None:
        """Write one line."""
        sys.stdout.buffer.write(msgspec.json.encode(line) + b"\n")
        sys.stdout.buffer.flush()

    async def order(self) -> Order:
        """The next order. Raises EOFError when the parent is gone."""
        line = await self._orders.readline()
        if not line:
            raise EOFError("the parent has ended")
        order: Order = msgspec.json.decode(line, type=Order)
        return order


def serve(kind: type[J], main: Callable[[J, Parent], Coroutine[Any, Any, None]]) -> None:
    """Run ``main`` with the job that the command line names. Used by the `__main__` of a measuring process."""
    job = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=kind)
    gc.set_threshold(NEW_OBJECTS)

    async def with_parent() -> None:
        orders = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
        await main(job, Parent(orders))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(with_parent())


def rows_file(job: ProducerJob | ReaderJob) -> BinaryIO:
    """Open the file of a job's rows."""
    return Path(job.rows).open("wb")


STOP_S = 5.0
READY_S = 120.0


class MeasuringError(RuntimeError):
    """A process of the harness failed; the message has the end of its output."""


class MeasuringProcess:
    """A producer or the reader. ``last`` is its last progress report."""

    def __init__(self, started: Child, name: str) -> None:
        self.ready = asyncio.Event()
        self.last: ProducerProgress | ReaderProgress | None = None
        self._child = started
        self._name = name
        self._reading = asyncio.create_task(self._read(), name=name)

    async def prepared(self) -> None:
        """Wait until it is ready. Raises MeasuringError when it ends before, or takes too long."""
        ready = asyncio.create_task(self.ready.wait())
        await asyncio.wait((ready, self._reading), timeout=READY_S * slowness(), return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            ready.cancel()
            raise self._error("did not become ready")

    def order(self, order: Order) -> None:
        """Send one order."""
        self._child.input.write(msgspec.json.encode(order) + b"\n")

    @property
    def ended(self) -> bool:
        return self._reading.done()

    def check(self) -> None:
        """Raises MeasuringError when it has failed."""
        if code := self._child.code:
            raise self._error(f"ended with {code}")

    async def end(self) -> None:
        """Wait for its end. Raises MeasuringError when it failed."""
        await self._reading
        await self._child.process.wait()
        self.check()

    async def close(self) -> None:
        """Close its input, which ends it, and kill it if it stays."""
        self._child.input.close()
        try:
            await asyncio.wait_for(self._child.process.wait(), STOP_S)
        except TimeoutError:
            await self._child.kill()
        await asyncio.wait((self._reading,))

    async def _read(self) -> None:
        while line := await self._child.output.readline():
            message = msgspec.json.decode(line, type=Line)
            if isinstance(message, Ready):
                self.ready.set()
            else:
                self.last = message

    def _error(self, what: str) -> MeasuringError:
        return MeasuringError(f"The harness's {self._name} {what}.\n{self._child.log_tail()}")


@asynccontextmanager
async def measuring(job: ProducerJob | ReaderJob, folder: Path, name: str) -> AsyncIterator[MeasuringProcess]:
    """Run the process of ``job``, at most as long as the block. Its files in ``folder`` begin with ``name``."""
    module = "producer" if isinstance(job, ProducerJob) else "reader"
    file, errors = folder / f"{name}.json", folder / f"{name}.errors"
    file.touch(mode=0o600)  # a password may be in it
    file.write_bytes(msgspec.json.encode(job))
    command = (sys.executable, "-m", f"headrace_load.measure.{module}", str(file))
    async with child(command, log=errors, orphaned=signal.SIGKILL, pipes=True) as started:
        process = MeasuringProcess(started, name)
        try:
            yield process
        finally:
            await process.close()


SOON_US = 300_000
"""The time between the order and the beginning, so that every producer gets the order in time."""


class Producers:
    """Producers that are prepared."""

    def __init__(self, processes: Sequence[MeasuringProcess], files: Sequence[Path]) -> None:
        self._processes = processes
        self._files = files

    def begin(self) -> int:
        """Order them to begin in a moment. Returns the moment in microseconds since the Unix epoch."""
        at_us = time.time_ns() // 1000 + SOON_US
        for process in self._processes:
            process.order(Begin(at_us))
        return at_us

    def stop(self) -> None:
        """Let them stop sending. They end when every sent request has its outcome."""
        for process in self._processes:
            process.order(Stop())

    def check(self) -> None:
        """Raises MeasuringError when one has failed."""
        for process in self._processes:
            process.check()

    @property
    def ended(self) -> bool:
        return all(process.ended for process in self._processes)

    def told(self) -> ProducerProgress:
        """Their progress added up, with the lateness of the latest."""
        said = [process.last for process in self._processes if isinstance(process.last, ProducerProgress)]
        return ProducerProgress(
            due=sum(one.due for one in said),
            sent=sum(one.sent for one in said),
            acked=sum(one.acked for one in said),
            failed=sum(one.failed for one in said),
            late_p99_us=max((one.late_p99_us for one in said if one.late_p99_us is not None), default=None),
            complete=len(said) == len(self._processes) and all(one.complete for one in said),
            error=next((one.error for one in said if one.error is not None), None),
        )

    async def rows(self) -> NDArray[np.void]:
        """The rows of all producers after their end. Raises MeasuringError when one failed."""
        for process in self._processes:
            await process.end()
        return read_rows(self._files, SENT)


@asynccontextmanager
async def producing(
    workload: Workload, system: System, folder: Path, *, texts: Path, ids: bool
) -> AsyncIterator[Producers]:
    """Run the workload's producers while the block runs. They are prepared when it begins."""
    async with AsyncExitStack() as stack:
        processes: list[MeasuringProcess] = []
        files: list[Path] = []
        for number in range(workload.producers):
            rows = folder / f"sent-{number}.rows"
            job = ProducerJob(
                workload=workload, producer=number, system=system, texts=str(texts), ids=ids, rows=str(rows)
            )
            processes.append(await stack.enter_async_context(measuring(job, folder, f"producer-{number}")))
            files.append(rows)
        await asyncio.gather(*(process.prepared() for process in processes))
        yield Producers(processes, files)


CLOCK_S = 10.0
ROWS = "answered.rows"
_CLOCKS = {0: "create", 1: "append"}  # Kafka's numbers of what a record's timestamp is


class Tail:
    """The ends of the results partitions, compared with those when the run began."""

    def __init__(self, reader: AnswerReader, begins: dict[int, int]) -> None:
        self._reader = reader
        self.begins = begins

    async def records(self) -> int:
        """How many answers were appended since then, repeats included."""
        return sum((await self.ends()).values()) - sum(self.begins.values())

    async def ends(self) -> dict[int, int]:
        """Where each partition ends now."""
        return await self._reader.ends()


@asynccontextmanager
async def tail(system: System) -> AsyncIterator[Tail]:
    """Watch the results' ends while the block runs."""
    async with system.client() as client, client.reader("latest") as reader:
        yield Tail(reader, await reader.ends())


@asynccontextmanager
async def reading(
    system: System, answers: Answers, folder: Path, begins: dict[int, int], ends: dict[int, int] | None
) -> AsyncIterator[MeasuringProcess]:
    """Run a reader from ``begins`` to ``ends``, or live. It is ready when the block begins."""
    job = ReaderJob(system=system, answers=answers, positions=begins, ends=ends, rows=str(folder / ROWS))
    async with measuring(job, folder, "reader") as child:
        await child.prepared()
        yield child


async def rows(reader: MeasuringProcess, folder: Path) -> tuple[NDArray[np.void], ReaderProgress]:
    """The rows of a reader that ends, and its last report. Raises MeasuringError."""
    await reader.end()
    assert isinstance(reader.last, ReaderProgress)  # noqa: S101 - the last thing a reader says before it ends well
    return read_rows([folder / ROWS], ANSWERED), reader.last


async def append_clock(system: System, ends: dict[int, int], begins: dict[int, int]) -> str:
    """Whose time stamps the answers have, by the last one: "append" (the broker's), "create" (the program's) or
    "unknown".
    """
    partition = next((number for number, end in ends.items() if end > begins.get(number, 0)), None)
    if partition is None:
        return "unknown"
    where = TopicPartition(system.results, partition)
    async with system.consumer(auto_offset_reset="none") as consumer:
        consumer.assign([where])
        consumer.seek(where, ends[partition] - 1)
        found = await consumer.getmany(timeout_ms=int(CLOCK_S * 1000), max_records=1)
    return next((_CLOCKS.get(record.timestamp_type, "unknown") for record in found.get(where, [])), "unknown")
