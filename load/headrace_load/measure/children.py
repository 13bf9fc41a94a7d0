"""The harness's own processes: started with a job, read line by line, and gone when the block ends."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec

from headrace_load.measure.job import Line, Order, ProducerJob, Read, ReaderJob, Ready, Told
from headrace_load.waiting import slowness

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
