"""Time as a collaborator: whoever waits or stamps is given a clock, so a test can turn it by hand.

Which timestamps of records can be believed: clients write seconds for milliseconds, nanoseconds, or none at all.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final, Protocol

import msgspec


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

FIRST_PAUSE_S: Final = 60.0
LONGEST_PAUSE_S: Final = 3600.0


def believable(now_ms: int) -> tuple[int, int]:
    """Return the earliest and the latest timestamp, both included, that a record fetched at ``now_ms`` may have."""
    return max(0, now_ms - MAX_AGE_MS), now_ms + MAX_AHEAD_MS


def kind_of(timestamp: int, now_ms: int) -> str:
    """Name what is wrong with a timestamp that is not believable: ``missing`` (Kafka's -1), ``past`` or ``future``."""
    if timestamp == -1:
        return "missing"
    return "past" if timestamp < now_ms else "future"


class Reminder(msgspec.Struct):
    """When to say again what goes on: at once, then after a minute, then after twice as long each time, to an hour."""

    due_s: float = 0.0
    pause_s: float = FIRST_PAUSE_S
    unsaid: int = 0

    def count(self, times: int, now_s: float) -> int:
        """Take ``times`` at ``now_s``; how many there were since it was said last, where it is due, otherwise 0."""
        self.unsaid += times
        if not self.unsaid or now_s < self.due_s:
            return 0
        said, self.unsaid = self.unsaid, 0
        self.due_s, self.pause_s = now_s + self.pause_s, min(2 * self.pause_s, LONGEST_PAUSE_S)
        return said
