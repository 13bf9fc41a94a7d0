"""Acting on a worker at an exact point of its work, which the proxies see pass."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from headrace_load.waiting import until
from load.chaos.proxy import Passing, Way
from load.chaos.workers import Worker
from load.chaos.world import World

LIMIT_S = 60.0


async def at(
    world: World, worker: Worker, way: Way, api: int, act: Callable[[], Coroutine[Any, Any, bool]], *, least: int = 0
) -> None:
    """Call ``act`` once, when a frame of ``worker`` passes of that kind and of at least ``least`` bytes.

    What ``act`` returns says whether the frame goes on. Raises TimeoutError when none passes, ProgramError when the
    worker ends first, and what ``act`` raises.
    """
    begun = asyncio.Event()
    acting: list[asyncio.Task[bool]] = []

    async def hook(passing: Passing) -> bool:
        meant = passing.way is way and (passing.request.api, passing.request.client) == (api, worker.name)
        if begun.is_set() or not meant or passing.size < least:
            return True
        # A task of its own: what it does may end this very connection, and the forwarding with it.
        acting.append(asyncio.create_task(act()))
        begun.set()
        return await asyncio.shield(acting[0])

    for proxy in world.cluster.proxies:
        proxy.hook = hook
    try:
        frame = f"a frame of {worker.name} {way.value} (API {api}, at least {least} bytes)"
        await until(begun.is_set, frame, LIMIT_S, worker.check)
        await acting[0]
    finally:
        for proxy in world.cluster.proxies:
            proxy.hook = None
