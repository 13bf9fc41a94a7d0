"""Wait for a condition, with a limit: the only place where a test on a real clock sleeps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def until(look: Callable[[], T | None], limit_s: float = 60.0) -> T:
    """Return what ``look`` finds as soon as it finds something. Raises TimeoutError."""
    async with asyncio.timeout(limit_s):
        while not (found := look()):  # noqa: ASYNC110 - another process makes it true
            await asyncio.sleep(0.05)
    return found
