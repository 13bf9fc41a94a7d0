"""Tests as stories: each in a fresh world, on a turned clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

from headrace.kafka.memory import MemoryCluster
from tests.support.turned_loop import TurnedClock, run_turned


class World(Protocol):
    """What a story plays in."""

    async def close(self) -> None: ...


W = TypeVar("W", bound=World)
Play = Callable[[W], Coroutine[Any, Any, None]]


def story_in(make: Callable[[], W]) -> Callable[[Play[W]], Callable[[], None]]:
    """What decorates ``async def test(world)``, so that it runs in the world that ``make`` gives."""

    def story(play: Play[W]) -> Callable[[], None]:
        def test() -> None:
            async def main() -> None:
                world = make()
                try:
                    await play(world)
                finally:
                    await world.close()

            run_turned(main())

        test.__name__, test.__module__ = play.__name__, play.__module__
        return test

    return story


class TwinWorld:
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
