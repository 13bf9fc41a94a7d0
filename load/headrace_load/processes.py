"""Programs as child processes: they end with their handle, and on Linux with the harness, even if that is killed."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import TypeVar

from headrace.process.child_process import ending_with_parent
from headrace_load.waiting import slowness

STOP_S = 40.0
"""Longest wait after SIGTERM; a worker with several members takes 30 s when its broker is gone."""
READY_S = 120.0
POLL_S = 0.05
LOG_TAIL_LINES = 15

T = TypeVar("T")


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
