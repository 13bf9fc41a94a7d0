"""What the ranks of a training write: their events, and why they ended."""

from __future__ import annotations

import asyncio
import signal
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec

RANK_FAILED: Final = "rank.failed"
"""The event by which a rank says in ``error`` why it ends, ``lasting`` when to start it again would change nothing."""

LOG_TAIL_LINES = 15
LONGEST_LINE = 64 * 1024


class Output:
    """Takes in what the ranks write, line by line, and how they end, and keeps of it what explains a failure."""

    def __init__(self) -> None:
        self._reasons: dict[int, str] = {}
        self._death: str | None = None
        self._tail: deque[str] = deque(maxlen=LOG_TAIL_LINES)
        self.lasting: str | None = None
        """The first reason that lasts, if a rank gave one."""

    def take(self, rank: int, line: bytes) -> dict[str, Any] | None:
        """The event that ``line`` of ``rank`` is, or None."""
        event = _event(line)
        if event is None:
            self._tail.append(line.decode(errors="replace"))
        elif event["event"] == RANK_FAILED:
            reason = self._reasons[rank] = str(event.get("error"))
            if self.lasting is None and event.get("lasting"):
                self.lasting = reason
        return event

    def ended(self, rank: int, code: int) -> None:
        """``rank`` ended by itself with ``code``, as asyncio gives it."""
        if code and rank not in self._reasons and self._death is None:
            how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
            self._death = f"rank {rank} ended {how}"

    def why(self) -> str:
        """Why the ranks ended: a reason that lasts; else the death of one that gave no reason, and what others said.

        A rank whose neighbour was killed knows of nothing but a closed connection.
        """
        if self.lasting is not None:
            return self.lasting
        found = [] if self._death is None else [self._death]
        if self._reasons:
            found.append(next(iter(self._reasons.values())))
        return "; ".join(found) or "the ranks gave no reason"

    def last_lines(self) -> str:
        """What they wrote last beside their events, in whoever's words: for the terminal, and for no record."""
        return "\n".join(self._tail)


async def lines(stream: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """The lines of ``stream`` without their ends; one longer than LONGEST_LINE bytes comes in pieces."""
    rest = b""
    while data := await stream.read(LONGEST_LINE):
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            yield line
        if len(rest) >= LONGEST_LINE:
            yield rest
            rest = b""
    if rest:
        yield rest


def _event(line: bytes) -> dict[str, Any] | None:
    if not line.startswith(b"{"):
        return None
    try:
        event = msgspec.json.decode(line, type=dict[str, Any])
    except msgspec.DecodeError:
        return None
    return event if "event" in event else None
