"""Tests as stories: each in a fresh world, on a turned clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

from tests.support.turned_loop import run_turned


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


async def after_a_moment(work: Callable[[], Any]) -> Any:
    """Offload for a turned clock: ``work`` takes some time, and no thread."""
    await asyncio.sleep(0.01)
    return work()
