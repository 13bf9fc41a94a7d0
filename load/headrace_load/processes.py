"""Programs as child processes, and waiting with a limit that follows the machine.

Programs end with their handle, and on Linux with the harness, even if that is killed.

A limit is written for an idle machine of two cores. On a busy one everything takes longer, so a limit is multiplied by
:func:`slowness`. A limit that is too long costs time only where something is broken.
"""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import TypeVar

from headrace.process.child_process import ending_with_parent

T = TypeVar("T")

POLL_S = 0.05
CALIBRATION_S = 0.1


def slowness() -> float:
    """How many times longer than on an idle machine work takes here, at least 1.

    It is the larger of what :func:`calibrated` measured once and of the processes that are ready to run for each core,
    as the system counts them over the last minute: load that begins later counts too.
    """
    return max(1.0, calibrated(), os.getloadavg()[0] / (os.cpu_count() or 1))


@functools.cache
def calibrated() -> float:
    """Seconds that pass for each second of CPU time that this thread gets, measured at the first call."""
    begun, cpu = time.monotonic(), time.thread_time()
    while (used := time.thread_time() - cpu) < CALIBRATION_S:
        pass
    return (time.monotonic() - begun) / used


@asynccontextmanager
async def within(limit_s: float, what: str) -> AsyncIterator[None]:
    """Limit the block to ``limit_s`` seconds times the machine's slowness.

    ``what`` completes the sentence "... did not happen within". Raises TimeoutError with it.
    """
    limit_s *= slowness()
    try:
        async with asyncio.timeout(limit_s) as limit:
            yield
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise TimeoutError(f"{what} did not happen within {limit_s:.0f} s") from error


async def until(
    look: Callable[[], T | None], what: str, limit_s: float = 60.0, check: Callable[[], None] = lambda: None
) -> T:
    """Return what ``look`` finds as soon as it finds something; ``check`` raises when it never will.

    Raises TimeoutError as :func:`within` does.
    """
    async with within(limit_s, what):
        while not (found := look()):
            check()
            await asyncio.sleep(POLL_S)
    return found


STOP_S = 40.0
"""Longest wait after SIGTERM; a worker with several members takes 30 s when its broker is gone."""
READY_S = 120.0
LOG_TAIL_LINES = 15


class ProgramError(RuntimeError):
    """A program did not start or ended by itself; the message has the end of what it printed."""


class Child:
    """One program in a session of its own, so that the terminal's Ctrl-C reaches it only through us."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.process = process
        self.log = log

    @property
    def input(self) -> asyncio.StreamWriter:
        """The pipe to its standard input, of a child with pipes."""
        assert self.process.stdin is not None  # noqa: S101 - opened by child()
        return self.process.stdin

    @property
    def output(self) -> asyncio.StreamReader:
        """The pipe from its standard output, of a child with pipes."""
        assert self.process.stdout is not None  # noqa: S101 - opened by child()
        return self.process.stdout

    @property
    def pid(self) -> int:
        return self.process.pid

    def check(self) -> None:
        """Raises ProgramError when it has ended."""
        if self.process.returncode is not None:
            raise self.error(f"It ended with {self.process.returncode}.")

    def error(self, reason: str) -> ProgramError:
        return ProgramError("\n".join([f"{reason} The end of its log ({self.log}):", *self.log_tail()]))

    def log_tail(self) -> list[str]:
        """The last lines that it printed."""
        return self.log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]

    async def kill(self) -> None:
        """SIGKILL, as an out-of-memory killer would."""
        with suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()

    async def stop(self) -> None:
        """SIGTERM, then SIGKILL when it does not end; what it left of its own session is killed too."""
        if self.process.returncode is None:
            with suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGTERM)
            with suppress(TimeoutError):
                await asyncio.wait_for(self.process.wait(), STOP_S)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        await self.process.wait()


@asynccontextmanager
async def child(
    command: Sequence[str],
    *,
    log: Path,
    environment: Mapping[str, str] | None = None,
    orphaned: signal.Signals = signal.SIGKILL,
    pipes: bool = False,
) -> AsyncIterator[Child]:
    """Keep ``command`` running while the block runs; what it prints goes to ``log``.

    ``environment`` is laid over ours; ``orphaned`` is the signal that it gets when we are gone. With ``pipes`` its
    standard input and output are pipes to us, and only its errors go to ``log``. Raises ProgramError.
    """
    with log.open("ab") as output:
        try:
            process = await asyncio.create_subprocess_exec(
                *ending_with_parent(command, orphaned),
                stdin=asyncio.subprocess.PIPE if pipes else asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE if pipes else output,
                stderr=output,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )
        except OSError as error:
            raise ProgramError(f"{command[0]} can't be run: {error}") from error
    running = Child(process, log)
    try:
        yield running
    finally:
        await running.stop()


def running(
    *arguments: str, log: Path, environment: Mapping[str, str] | None = None
) -> AbstractAsyncContextManager[Child]:
    """Keep a `headrace` command running; when we are gone it is asked to stop, so that it ends its own children."""
    return child(
        (sys.executable, "-m", "headrace", *arguments), log=log, environment=environment, orphaned=signal.SIGTERM
    )


async def headrace(*arguments: str, environment: Mapping[str, str] | None = None) -> str:
    """Run a command to its end and return what it printed. Raises ProgramError with its output when it fails."""
    process = await asyncio.create_subprocess_exec(
        *ending_with_parent((sys.executable, "-m", "headrace", *arguments), signal.SIGKILL),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, **(environment or {})},
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise ProgramError(f"headrace {' '.join(arguments)} ended with {process.returncode}:\n{output.decode()}")
    return output.decode()


async def found_in_time(process: Child, look: Callable[[], T | None]) -> T:
    """Return what ``look`` finds. Raises ProgramError when ``process`` ends first, or nothing is found in time."""
    deadline = time.monotonic() + READY_S * slowness()
    while (found := await asyncio.to_thread(look)) is None:
        process.check()
        if time.monotonic() > deadline:
            raise process.error("It was not ready in time.")
        await asyncio.sleep(POLL_S)
    return found
