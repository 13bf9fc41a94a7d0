"""Workers that are killed in the middle of a run, as an out-of-memory killer would: what is lost, the audit says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress

import psutil

from headrace_load.contender import Contender, ContenderError
from headrace_load.measure.answers import tail
from headrace_load.processes import ProgramError
from headrace_load.system import Running, Start, System

POLL_S = 0.05


def check_killable(contenders: Mapping[str, Contender]) -> None:
    """Raises ContenderError for one whose processes nobody would start again."""
    for name, contender in contenders.items():
        if contender.worker is None or contender.worker.processes < 2:
            raise ContenderError(
                f"{name}: killed members are started again by the parent of several; "
                "give it a table [worker] with processes = 2 or more"
            )


def killed(start: Start, system: System, *, after: int) -> Start:
    """``start``, and when ``after`` answers are there SIGKILL for each member; their parent starts them again.

    Started again, members have other addresses, so nobody is told of metrics. Leaving raises ProgramError when the run
    was over before so many answers were there.
    """

    @asynccontextmanager
    async def started() -> AsyncIterator[Running]:
        async with start() as running:
            killer = asyncio.create_task(_kill(system, running.pids, after))
            try:
                yield Running(pids=running.pids)
                if not killer.done():
                    raise ProgramError(f"nobody was killed: there were never {after:,} answers")
                killer.result()
            finally:
                killer.cancel()

    return started


async def _kill(system: System, parents: Sequence[int], after: int) -> None:
    async with tail(system) as end:
        # The topics are the run's own and the workers start now, so all answers in them are this run's.
        while sum((await end.ends()).values()) < after:  # noqa: ASYNC110 - another process makes it true
            await asyncio.sleep(POLL_S)
    for parent in parents:
        for member in psutil.Process(parent).children():
            with suppress(psutil.NoSuchProcess):
                member.kill()
