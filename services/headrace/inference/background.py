"""Work beside the answering: on threads of their own, that nobody has to wait for.

They have the priority of all others. A lower one would be worse for the answering: preempted while it holds the
interpreter's lock, such a thread stops every other (3 s were seen where two busy programs had the cores).
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")

MOST_THREADS = 8
THREADS_EACH = 2
"""A version that hangs on its store, and is tried again and again, must not keep another from being loaded."""


class Background:
    """Starts a daemon thread for each piece of work; a cancelled one runs on unheard.

    At most THREADS_EACH run at once for the same ``thing``, and MOST_THREADS in all; more work waits.
    """

    def __init__(self) -> None:
        self._running: Counter[str] = Counter()
        self._ended = asyncio.Event()

    async def run(self, thing: str, work: Callable[[], T]) -> T:
        """Return what ``work`` returns, or raise what it raises."""
        while self._running[thing] >= THREADS_EACH or self._running.total() >= MOST_THREADS:
            self._ended.clear()
            await self._ended.wait()
        self._running[thing] += 1
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()

        def finish(result: T | None, error: BaseException | None) -> None:
            self._running[thing] -= 1
            self._running += Counter()  # forgets what has none
            self._ended.set()
            if done.cancelled():
                return
            if error is not None:
                done.set_exception(error)
            else:
                done.set_result(result)  # type: ignore[arg-type]  # without an error there is a result

        def thread() -> None:
            result, error = None, None
            try:
                result = work()
            except BaseException as raised:  # noqa: BLE001 - it is raised where the result is awaited
                error = raised
            # A loop that was closed meanwhile belongs to a process that is ending.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(finish, result, error)

        threading.Thread(target=thread, name="background", daemon=True).start()
        return await done
