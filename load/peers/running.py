"""An asyncio program that runs until SIGTERM, on uvloop as headrace does."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from contextlib import suppress

import uvloop


def run_until_terminated(main: Callable[[], Coroutine[None, None, None]]) -> None:
    """Run ``main``; SIGTERM cancels it, and its ``finally`` blocks end what it began."""

    async def cancellable() -> None:
        running = asyncio.ensure_future(main())
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
        with suppress(asyncio.CancelledError):
            await running

    uvloop.run(cancellable())
