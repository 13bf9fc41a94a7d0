"""Clocks, which are passed in so that a test can turn them by hand; and which timestamps are believable.

Some clients write seconds or nanoseconds instead of milliseconds, or no timestamp at all.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final, Protocol


class Clock(Protocol):
    """Wall time, a time that never runs backwards, and waiting."""

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch."""

    def monotonic(self) -> float:
        """Seconds since some fixed moment, for differences and deadlines."""

    async def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The machine's own time and the running event loop's sleep."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


MAX_AGE_MS: Final = 10 * 365 * 24 * 3600 * 1000
"""No log keeps a request for so long. Seconds that are taken for milliseconds lie in January 1970."""
MAX_AHEAD_MS: Final = 24 * 3600 * 1000
"""More than clocks or time zones differ. Microseconds that are taken for milliseconds lie in another age."""


def believable(now_ms: int) -> tuple[int, int]:
    """Return the earliest and the latest timestamp, both included, that a record fetched at ``now_ms`` may have."""
    return max(0, now_ms - MAX_AGE_MS), now_ms + MAX_AHEAD_MS


def kind_of(timestamp: int, now_ms: int) -> str:
    """Name what is wrong with a timestamp that is not believable: ``missing`` (Kafka's -1), ``past`` or ``future``."""
    if timestamp == -1:
        return "missing"
    return "past" if timestamp < now_ms else "future"
