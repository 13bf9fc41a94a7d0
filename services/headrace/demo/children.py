"""headrace's own commands as child processes that can't outlive the demo."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any, Never

import msgspec

from headrace.core.errors import UserError, one_of_all
from headrace.process.child_process import ending_with_parent

LOG_TAIL_LINES = 15


class ChildEndedError(UserError):
    """A command that the demo needs ended by itself, or did not get ready in time."""


@asynccontextmanager
async def child(
    arguments: Sequence[str], *, environ: Mapping[str, str], folder: Path, log: Path | None, grace_s: float
) -> AsyncIterator[Process]:
    """Run ``headrace *arguments`` in ``folder`` while the block runs, then end it: SIGTERM, and SIGKILL ``grace_s``
    seconds later.

    Its output goes to ``log``, or for None where ours goes. A session of its own keeps the terminal's Ctrl-C for us
    to act on, and on Linux it gets SIGTERM when we are killed.
    """
    with nullcontext() if log is None else log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *ending_with_parent((sys.executable, "-m", "headrace", *arguments)),
            env=environ,
            cwd=folder,
            stdin=DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        await _end(process, grace_s)


async def run_to_its_end(
    name: str, arguments: Sequence[str], *, environ: Mapping[str, str], folder: Path, log: Path | None, grace_s: float
) -> None:
    """Run ``headrace *arguments`` as :func:`child` does, to its end. Raises ChildEndedError unless it ends well."""
    async with child(arguments, environ=environ, folder=folder, log=log, grace_s=grace_s) as process:
        if code := await process.wait():
            why = "what it printed says why." if log is None else f"the end of what it printed:\n{log_tail(log)}"
            raise ChildEndedError(f"{name} ended with exit code {code}; {why}")


class Service(msgspec.Struct, frozen=True):
    """A running command that ends only when it is told to, and its log. ``name`` is for messages."""

    name: str
    process: Process
    log: Path

    async def watch(self) -> Never:
        """Wait until it ends, which it should not. Raises ChildEndedError with the end of its log."""
        code = await self.process.wait()
        raise ChildEndedError(f"{self.name} ended by itself (exit code {code}). The end of its log:\n{self.tail}")

    @property
    def tail(self) -> str:
        return log_tail(self.log)


@asynccontextmanager
async def beside(*others: Coroutine[Any, Any, object]) -> AsyncIterator[None]:
    """Run ``others`` beside the block, and end them with it. What they raise ends the block and is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in others]
            yield
            for task in tasks:
                task.cancel()
    except ExceptionGroup as raised:
        raise one_of_all(raised) from raised


def log_tail(log: Path) -> str:
    """The last lines of ``log``."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])


async def _end(process: Process, grace_s: float) -> None:
    if process.returncode is None:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), grace_s)
        except TimeoutError:
            process.kill()
            await process.wait()
