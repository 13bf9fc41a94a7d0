"""The harness's own processes: started with a job, read line by line, and gone when the block ends.

All producer processes of a run as one.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace_load.measure.columns import SENT, read_rows
from headrace_load.measure.job import Begin, Line, Order, ProducerJob, Read, ReaderJob, Ready, Stop, Told
from headrace_load.system import System
from headrace_load.waiting import slowness
from headrace_load.workload.spec import Workload

STOP_S = 5.0
READY_S = 120.0


class MeasuringError(RuntimeError):
    """One of the harness's own processes failed; the message has the end of what it said."""


class Measuring:
    """A producer or the reader. ``last`` is the last line it said of how far it is."""

    def __init__(self, process: asyncio.subprocess.Process, errors: Path, name: str) -> None:
        self.process = process
        self.ready = asyncio.Event()
        self.last: Told | Read | None = None
        self._errors = errors
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
        assert self.process.stdin is not None  # noqa: S101 - opened below
        self.process.stdin.write(msgspec.json.encode(order) + b"\n")

    @property
    def ended(self) -> bool:
        return self._reading.done()

    def check(self) -> None:
        """Raises MeasuringError when it has failed."""
        if self.process.returncode:
            raise self._error(f"ended with {self.process.returncode}")

    async def end(self) -> None:
        """Wait for its end. Raises MeasuringError when it failed."""
        await self._reading
        await self.process.wait()
        self.check()

    async def stop(self) -> None:
        """Close its input, which ends it, and kill it when it stays."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            await asyncio.wait_for(self.process.wait(), STOP_S)
        except TimeoutError:
            with suppress(ProcessLookupError):
                self.process.kill()
            await self.process.wait()
        await asyncio.wait((self._reading,))

    async def _read(self) -> None:
        assert self.process.stdout is not None  # noqa: S101 - opened below
        while line := await self.process.stdout.readline():
            said = msgspec.json.decode(line, type=Line)
            if isinstance(said, Ready):
                self.ready.set()
            else:
                self.last = said

    def _error(self, what: str) -> MeasuringError:
        lines = self._errors.read_text(errors="replace").splitlines()[-15:]
        return MeasuringError("\n".join([f"The harness's {self._name} {what}.", *lines]))


@asynccontextmanager
async def measuring(job: ProducerJob | ReaderJob, folder: Path, name: str) -> AsyncIterator[Measuring]:
    """Keep the process of ``job`` running, at most as long as the block; its files are in ``folder``, named ``name``.

    It is in a session of its own: Ctrl-C is for us, and we end it.
    """
    module = "producing" if isinstance(job, ProducerJob) else "reading"
    file, errors = folder / f"{name}.json", folder / f"{name}.errors"
    file.touch(mode=0o600)  # a password may be in it
    file.write_bytes(msgspec.json.encode(job))
    with errors.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            f"headrace_load.measure.{module}",
            str(file),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=output,
            start_new_session=True,
        )
    child = Measuring(process, errors, name)
    try:
        yield child
    finally:
        await child.stop()


SOON_US = 300_000
"""From the order to the beginning, so that every producer knows of it in time."""


class Producers:
    """Producers that are prepared."""

    def __init__(self, children: Sequence[Measuring], files: Sequence[Path]) -> None:
        self._children = children
        self._files = files

    def begin(self) -> int:
        """Let them begin in a moment, and return when that is (microseconds since the Unix epoch)."""
        at_us = time.time_ns() // 1000 + SOON_US
        for child in self._children:
            child.order(Begin(at_us))
        return at_us

    def stop(self) -> None:
        """Let them send no more; they end when what they sent has its outcome."""
        for child in self._children:
            child.order(Stop())

    def check(self) -> None:
        """Raises MeasuringError when one has failed."""
        for child in self._children:
            child.check()

    @property
    def ended(self) -> bool:
        return all(child.ended for child in self._children)

    def told(self) -> Told:
        """What they did so far, together; the lateness is of the latest of them."""
        said = [child.last for child in self._children if isinstance(child.last, Told)]
        return Told(
            due=sum(one.due for one in said),
            sent=sum(one.sent for one in said),
            acked=sum(one.acked for one in said),
            failed=sum(one.failed for one in said),
            late_p99_us=max((one.late_p99_us for one in said if one.late_p99_us is not None), default=None),
            complete=len(said) == len(self._children) and all(one.complete for one in said),
            error=next((one.error for one in said if one.error is not None), None),
        )

    async def rows(self) -> NDArray[np.void]:
        """The rows of all, once they have ended. Raises MeasuringError when one failed."""
        for child in self._children:
            await child.end()
        return read_rows(self._files, SENT)


@asynccontextmanager
async def producing(
    workload: Workload, system: System, folder: Path, *, texts: Path, ids: bool
) -> AsyncIterator[Producers]:
    """Keep the workload's producers while the block runs; they are prepared when it begins."""
    async with AsyncExitStack() as stack:
        children: list[Measuring] = []
        files: list[Path] = []
        for number in range(workload.producers):
            rows = folder / f"sent-{number}.rows"
            job = ProducerJob(
                workload=workload, producer=number, system=system, texts=str(texts), ids=ids, rows=str(rows)
            )
            children.append(await stack.enter_async_context(measuring(job, folder, f"producer-{number}")))
            files.append(rows)
        await asyncio.gather(*(child.prepared() for child in children))
        yield Producers(children, files)
