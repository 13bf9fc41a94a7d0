"""An event loop whose clock is turned: when nothing is ready, time jumps to the next timer.

A simulation of minutes runs in milliseconds and always the same way. Nothing in it may wait for a thread or a socket.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
EPOCH_MS = 1_700_000_000_000


class DeadlockError(Exception):
    """Every task waits and no timer will wake any of them."""


class TurnedLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0

    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        if not self._ready:
            while self._scheduled and self._scheduled[0]._cancelled:
                self._scheduled[0]._scheduled = False
                heapq.heappop(self._scheduled)
                self._timer_cancelled_count = max(0, self._timer_cancelled_count - 1)
            if not self._scheduled:
                raise DeadlockError(f"at {self._now:.3f} s")
            self._now = max(self._now, self._scheduled[0]._when)
        super()._run_once()


class TurnedClock:
    """The clock of the running TurnedLoop, as :class:`headrace.core.clock.Clock`."""

    def now_ms(self) -> int:
        return EPOCH_MS + int(1000 * self.monotonic())

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def run_turned(main: Coroutine[Any, Any, T]) -> T:
    """Run ``main`` to its end on a turned loop. Raises DeadlockError where a real loop would hang."""
    with asyncio.Runner(loop_factory=TurnedLoop) as runner:
        return runner.run(main)
