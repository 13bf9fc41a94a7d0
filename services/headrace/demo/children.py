"""headrace's own commands as child processes that can't outlive the demo."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path

from headrace.core.errors import UserError
from headrace.lifecycle import die_with_parent

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
            *(sys.executable, "-m", "headrace", *arguments),
            env=environ,
            cwd=folder,
            stdin=DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
    try:
        yield process
    finally:
        await _end(process, grace_s)


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
