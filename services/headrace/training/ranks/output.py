"""What the ranks of a training write, under torchrun's own lines: their events, and why they ended."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec

RANK_FAILED: Final = "rank.failed"
"""The event by which a rank says in ``error`` why it ends, ``lasting`` when to start it again would change nothing."""

LOG_TAIL_LINES = 15
LONGEST_LINE = 64 * 1024

_TORCHRUN_LOG = re.compile(r"[WIE]\d{4} \d\d:\d\d:\d\d")
_DEATH = re.compile(r"^Root Cause.*?^\s+rank\s*: (\d+).*?^\s+exitcode\s*: ([^\n]*\S)", re.MULTILINE | re.DOTALL)


class Output:
    """Takes in the output line by line, and keeps of it what explains a failure."""

    def __init__(self) -> None:
        self._reason: str | None = None
        self._tail: deque[str] = deque(maxlen=LOG_TAIL_LINES)
        self.lasting = False
        """Whether a rank gave a reason that lasts."""

    def take(self, line: bytes) -> dict[str, Any] | None:
        """The event that ``line`` is, or None."""
        event = _event(line)
        if event is None:
            text = line.decode(errors="replace")
            if not _TORCHRUN_LOG.match(text):
                self._tail.append(text)
        elif event["event"] == RANK_FAILED and not self.lasting:
            self._reason = str(event.get("error"))
            self.lasting = bool(event.get("lasting"))
        return event

    def why(self) -> str:
        """Why the ranks ended: a reason that lasts; else the death that torchrun saw first, and the last reason.

        A rank whose neighbour was killed knows of nothing but a closed connection.
        """
        text = "\n".join(self._tail)
        reasons = [] if self._reason is None else [self._reason]
        if not self.lasting and (death := _DEATH.search(text)):
            reasons.insert(0, f"rank {death[1]} ended with exit code {' '.join(death[2].split())}")
        return "; ".join(reasons) or text or "the ranks wrote nothing"


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
