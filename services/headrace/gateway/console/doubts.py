"""Suspected errors, found by a process of its own: the fits take seconds to minutes, and need torch.

One search runs at a time, when somebody asks and the labels have changed since the last one. What it found is kept in
memory.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Awaitable, Callable, Sequence
from importlib.util import find_spec

import msgspec

from headrace.config.loading import PREFIX
from headrace.core.clock import Clock
from headrace.learning.doubting import Asked, Found, Labelled, Outcome
from headrace.process.child_process import ending_with_parent
from headrace.process.logs import event

LIMIT_S = 600.0
FRESH_S = 120.0
"""The shortest time from one search to the next."""
MOST_LABELS = 50_000
"""How many of the last labels are searched."""
MOST_FOUND = 200

PROGRAM = ("-m", "headrace.learning.suspects")

Search = Callable[[bytes], Awaitable[bytes]]
"""From an encoded :class:`Asked` to an encoded :class:`Outcome`. Raises SearchError."""


class SearchError(Exception):
    """The search ended without an outcome; the message is for people."""


async def in_child(asked: bytes) -> bytes:
    """The search in a process of its own. It ends with this one, and after LIMIT_S. Raises SearchError."""
    if find_spec("torch") is None:
        raise SearchError(
            "The fits need torch, which this gateway does not have (pip install 'headrace[train]'). `headrace labels "
            "suspects` lists them on a machine that has it."
        )
    process = await asyncio.create_subprocess_exec(
        *ending_with_parent((sys.executable, *PROGRAM)),
        stdin=PIPE,
        stdout=PIPE,
        stderr=DEVNULL,  # a traceback may hold a text
        # It needs no setting, and no secret.
        env={name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        | {"OPENBLAS_NUM_THREADS": "1"},
    )
    try:
        async with asyncio.timeout(LIMIT_S):
            told, _ = await process.communicate(asked)
    except TimeoutError:
        raise SearchError(f"The fits took longer than {LIMIT_S:.0f} s.") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise SearchError(f"The fits ended with exit code {process.returncode}; `headrace labels suspects` shows why.")
    return told


class Doubts:
    """The labels that the last search doubts. ``search`` is a :data:`Search`."""

    def __init__(self, clock: Clock, search: Search = in_child) -> None:
        self._clock = clock
        self._search = search
        self._running: asyncio.Task[None] | None = None
        self._begun_s = 0.0
        self._searched: bytes | None = None
        self.found: Found | None = None
        """What the last search found, None where there was none or it failed."""
        self.error: str | None = None
        """Why the last search found nothing, in words."""

    @property
    def running_s(self) -> float | None:
        """How long a search has been running, None where none is."""
        running = self._running is not None and not self._running.done()
        return self._clock.monotonic() - self._begun_s if running else None

    def look(self, labels: Sequence[Labelled]) -> None:
        """Begin a search of ``labels``, unless one runs, the last was a moment ago, or the labels were searched."""
        now_s = self._clock.monotonic()
        if self.running_s is not None or (self._searched is not None and now_s - self._begun_s < FRESH_S):
            return
        last = sorted(labels, key=lambda one: one.labelled_at_ms or 0)[-MOST_LABELS:]
        asked = msgspec.json.encode(Asked(last, MOST_FOUND))
        digest = hashlib.sha256(asked).digest()
        if digest == self._searched:
            return
        self._searched, self._begun_s = digest, now_s
        self._running = asyncio.create_task(self._run(asked), name="console doubts")

    async def stop(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])

    async def _run(self, asked: bytes) -> None:
        try:
            outcome = msgspec.json.decode(await self._search(asked), type=Outcome)
            self.found, self.error = outcome.found, outcome.error
        except (SearchError, msgspec.DecodeError, OSError) as error:
            event("console.doubts_failed", level="warning", why=str(error))
            self.found, self.error = None, str(error)
