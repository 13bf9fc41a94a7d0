"""What a peer is told by its environment, and how it runs until SIGTERM."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass

import uvloop


@dataclass(frozen=True)
class Settings:
    """Where requests come from and answers go; ``model`` is a folder of `load.peers.export` (empty for an echo)."""

    bootstrap: str
    requests: str
    results: str
    group: str
    model: str
    engine: str
    threads: int


def from_environment() -> Settings:
    """Raises KeyError naming a variable that is missing."""
    return Settings(
        bootstrap=os.environ["BOOTSTRAP"],
        requests=os.environ["REQUESTS"],
        results=os.environ["RESULTS"],
        group=os.environ["GROUP"],
        model=os.environ.get("MODEL", ""),
        engine=os.environ.get("ENGINE", "torch"),
        threads=int(os.environ.get("THREADS", "1")),
    )


def run_until_terminated(main: Callable[[], Coroutine[None, None, None]]) -> None:
    """Run ``main``; SIGTERM cancels it, and its ``finally`` blocks end what it began."""

    async def cancellable() -> None:
        running = asyncio.ensure_future(main())
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
        with suppress(asyncio.CancelledError):
            await running

    uvloop.run(cancellable())
