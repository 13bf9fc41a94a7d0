"""Child processes with a log: started, watched and ended in one way.

A child has a session of its own, so that the terminal's Ctrl-C reaches it only through us; one that is hit before that
raises InterruptedChildError. A child ends with its block, and on Linux also when this process is killed.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext, suppress
from pathlib import Path
from typing import Never

from headrace.core.errors import InterruptedChildError, UserError
from headrace.process.child_process import ending_with_parent

GRACE_S = 40.0
"""Longest wait after SIGTERM; a worker with several members takes 30 s when its broker is gone."""
LOG_TAIL_LINES = 15


class ProgramError(UserError):
    """A program did not start, was not ready in time or ended by itself; the message has the end of what it printed."""


def headrace(*arguments: str) -> tuple[str, ...]:
    """The command `headrace` with ``arguments``, run by this Python."""
    return (sys.executable, "-m", "headrace", *arguments)


class Child:
    """A started program. ``name`` is for messages; ``log`` is None if it prints to our own output.

    What others wrote to the log before, ``begins`` bytes, is not its own.
    """

    def __init__(self, name: str, process: Process, log: Path | None, begins: int = 0) -> None:
        self.name = name
        self.process = process
        self.log = log
        self._begins = begins

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

    @property
    def code(self) -> int | None:
        """Its exit code, None while it runs."""
        return self.process.returncode

    def check(self) -> None:
        """Raises ProgramError when it has ended, InterruptedChildError when Ctrl-C ended it."""
        if self.code is not None:
            raise self.error(f"{self.name} ended by itself with exit code {self.code}.")

    async def watch(self) -> Never:
        """Wait until it ends, which it should not. Raises as :meth:`check` does."""
        await self.process.wait()
        self.check()
        raise AssertionError("a process that has ended has an exit code")

    def error(self, reason: str) -> UserError:
        """An error with the end of the log, as :meth:`check` raises it."""
        kind = _kind(self.code)
        return kind(f"{reason} The end of its log:\n{self.log_tail()}" if self.log else reason)

    def printed(self) -> bytes:
        """What it wrote to its log."""
        return b"" if self.log is None else self.log.read_bytes()[self._begins :]

    def log_tail(self) -> str:
        """The last lines that it wrote to its log."""
        return "\n".join(self.printed().decode(errors="replace").splitlines()[-LOG_TAIL_LINES:])

    async def kill(self) -> None:
        """SIGKILL, as an out-of-memory killer would."""
        with suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()

    async def stop(self, grace_s: float = GRACE_S) -> None:
        """SIGTERM, then SIGKILL if it does not end. Processes that are left in its session are killed too."""
        if self.code is None:
            with suppress(ProcessLookupError):
                self.process.terminate()
            with suppress(TimeoutError):
                await asyncio.wait_for(self.process.wait(), grace_s)
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        await self.process.wait()


def _kind(code: int | None) -> type[UserError]:
    """The error of a program that ended with exit code ``code``, None for one that runs."""
    return InterruptedChildError if code == -signal.SIGINT else ProgramError


@asynccontextmanager
async def child(
    command: Sequence[str],
    *,
    log: Path | None,
    name: str = "",
    environ: Mapping[str, str] | None = None,
    folder: Path | None = None,
    orphaned: signal.Signals = signal.SIGTERM,
    pipes: bool = False,
    grace_s: float = GRACE_S,
) -> AsyncIterator[Child]:
    """Keep ``command`` running while the block runs; see :meth:`Child.stop` for its end.

    Its output is appended to ``log``; None leaves it on ours. ``environ`` is its whole environment, None for ours. It
    runs in ``folder``, None for ours. When this process ends, it gets the signal ``orphaned``. With ``pipes`` its
    standard input and output are pipes to us, and only its errors go to ``log``. Raises ProgramError when it can't be
    run.
    """
    with nullcontext() if log is None else log.open("ab") as output:
        begins = 0 if output is None else output.tell()
        try:
            process = await asyncio.create_subprocess_exec(
                *ending_with_parent(command, orphaned),
                env=environ,
                cwd=folder,
                stdin=PIPE if pipes else DEVNULL,
                stdout=PIPE if pipes else output,
                stderr=output,
                start_new_session=True,
            )
        except OSError as error:
            raise ProgramError(f"{command[0]} can't be run: {error}") from error
    running = Child(name or command[0], process, log, begins)
    try:
        yield running
    finally:
        await running.stop(grace_s)


async def output_of(
    command: Sequence[str], *, name: str, environ: Mapping[str, str] | None = None, folder: Path | None = None
) -> str:
    """Run ``command`` to its end and return its output.

    Raises ProgramError with the output when it fails, InterruptedChildError when Ctrl-C ended it.
    """
    process = await asyncio.create_subprocess_exec(
        *ending_with_parent(command), env=environ, cwd=folder, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT,
        start_new_session=True,
    )  # fmt: skip
    try:
        printed, _ = await process.communicate()
    finally:
        await Child(name, process, None).stop()
    if process.returncode:
        kind = _kind(process.returncode)
        raise kind(f"{name} ended with exit code {process.returncode}; what it printed:\n{printed.decode()}")
    return printed.decode()
