"""Acting on a worker at an exact point of its work, which the proxies see pass."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from load.chaos.proxy import Passing, Way
from load.chaos.workers import Worker
from load.chaos.world import World

LIMIT_S = 30.0


async def at(
    world: World, worker: Worker, way: Way, api: int, act: Callable[[], Awaitable[bool]], *, least: int = 0
) -> None:
    """Call ``act`` once, when a frame of ``worker`` passes of that kind and of at least ``least`` bytes.

    What ``act`` returns says whether the frame goes on. Raises TimeoutError when none passes, and what ``act`` raises.
    """
    met: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    begun = False

    async def hook(passing: Passing) -> bool:
        nonlocal begun
        request = passing.request
        if (
            begun
            or passing.way is not way
            or request.api != api
            or request.client != worker.name
            or passing.size < least
        ):
            return True
        begun = True
        try:
            forward = await act()
        except Exception as error:
            met.set_exception(error)
            raise
        met.set_result(None)
        return forward

    for proxy in world.cluster.proxies:
        proxy.hook = hook
    try:
        await asyncio.wait_for(met, LIMIT_S)
    finally:
        for proxy in world.cluster.proxies:
            proxy.hook = None
