"""Waiting with a limit: the limit follows the machine, and the error says what was waited for.

A limit is written for an idle machine of two cores. On a busy one everything takes longer, so a limit is multiplied by
:func:`slowness`. A limit that is too long costs time only where something is broken.
"""

from __future__ import annotations

import asyncio
import functools
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

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
