"""Tests on a turned clock, each with a cluster of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

from tests.support.memory_kafka import MemoryCluster
from tests.support.turned_loop import TurnedClock, run_turned


class Closed(Protocol):
    """What a test is given, to be closed behind it."""

    async def close(self) -> None: ...


C = TypeVar("C", bound=Closed)
Test = Callable[[C], Coroutine[Any, Any, None]]


def on_turned_clock(make: Callable[[], C]) -> Callable[[Test[C]], Callable[[], None]]:
    """Return a decorator of ``async def test(cluster)``: it runs on a turned clock, with what ``make`` gives."""

    def decorated(test: Test[C]) -> Callable[[], None]:
        def run() -> None:
            async def main() -> None:
                given = make()
                try:
                    await test(given)
                finally:
                    await given.close()

            run_turned(main())

        run.__name__, run.__module__ = test.__name__, test.__module__
        return run

    return decorated


class TwinCluster:
    """Services that run over ``cluster``, by name, on the turned ``clock``."""

    clock: TurnedClock
    cluster: MemoryCluster
    runs: dict[str, asyncio.Task[Any]]
    patience_s = 60.0

    async def until(self, condition: Callable[[], Any], limit: float | None = None) -> None:
        """Wait until ``condition`` is true, for ``patience_s`` at most; what ends a service meanwhile is raised."""
        end = self.clock.monotonic() + (self.patience_s if limit is None else limit)
        while not condition():
            for run in self.runs.values():
                if run.done():
                    run.result()
            assert self.clock.monotonic() < end, "the condition did not come true"
            await self.clock.sleep(0.05)

    async def close(self) -> None:
        for run in self.runs.values():
            run.cancel()
        await asyncio.gather(*self.runs.values(), return_exceptions=True)
        await self.cluster.close()


async def after_a_moment(work: Callable[[], Any]) -> Any:
    """Offload for a turned clock: ``work`` takes some time, and no thread."""
    await asyncio.sleep(0.01)
    return work()
