"""`headrace` commands as child processes, and waiting with a limit that follows the machine.

A limit is written for an idle machine of two cores. On a busy one everything takes longer, so a limit is multiplied by
:func:`slowness`. A limit that is too long costs time only where something is broken.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar, overload

from headrace.process import children
from headrace.process.children import Child, child

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


@overload
async def until(
    look: Callable[[], Awaitable[T]], what: str, limit_s: float = 60.0, check: Callable[[], None] = ...
) -> T: ...
@overload
async def until(
    look: Callable[[], T | None], what: str, limit_s: float = 60.0, check: Callable[[], None] = ...
) -> T: ...
async def until(
    look: Callable[[], Any], what: str, limit_s: float = 60.0, check: Callable[[], None] = lambda: None
) -> Any:
    """Return what ``look`` finds, or the coroutine that it returns, as soon as that is something.

    ``check`` raises when it never will be. Raises TimeoutError as :func:`within` does.
    """
    async with within(limit_s, what):
        while True:
            looked = look()
            if found := await looked if inspect.isawaitable(looked) else looked:
                return found
            check()
            await asyncio.sleep(POLL_S)


READY_S = 120.0


def running(
    *arguments: str, log: Path, environment: Mapping[str, str] | None = None
) -> AbstractAsyncContextManager[Child]:
    """Keep a `headrace` command running while the block runs; ``environment`` is laid over ours."""
    return child(children.headrace(*arguments), log=log, name=_named(arguments), environ=over_ours(environment))


async def headrace(*arguments: str, environment: Mapping[str, str] | None = None) -> str:
    """Run a command to its end and return what it printed. Raises ProgramError with its output when it fails."""
    command = children.headrace(*arguments)
    return await children.output_of(command, name=_named(arguments), environ=over_ours(environment))


def over_ours(environment: Mapping[str, str] | None) -> dict[str, str]:
    """Our environment with ``environment`` laid over it."""
    return {**os.environ, **(environment or {})}


def _named(arguments: Sequence[str]) -> str:
    return f"`headrace {' '.join(arguments)}`"


async def found_in_time(process: Child, look: Callable[[], T | None]) -> T:
    """Return what ``look`` finds. Raises ProgramError when ``process`` ends first, or nothing is found in time."""
    deadline = time.monotonic() + READY_S * slowness()
    while (found := await asyncio.to_thread(look)) is None:
        process.check()
        if time.monotonic() > deadline:
            raise process.error(f"{process.name} was not ready in time.")
        await asyncio.sleep(POLL_S)
    return found
