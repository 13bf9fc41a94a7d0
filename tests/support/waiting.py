"""Wait for a condition, with a limit that follows the machine: the only place where a test on a real clock sleeps."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import TypeVar

from headrace_load import processes

T = TypeVar("T")

within = processes.within


async def until(look: Callable[[], T | Awaitable[T | None] | None], limit_s: float = 60.0) -> T:
    """Return what ``look``, which may be a coroutine function, finds as soon as it finds something.

    Raises TimeoutError with the source of ``look``.
    """
    return await processes.until(look, " ".join(inspect.getsource(look).split()), limit_s)
