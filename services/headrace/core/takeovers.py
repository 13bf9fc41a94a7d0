"""Takeovers of a static membership: when two processes with one id throw each other out.

Kafka gives a static member's place to whoever joins last under its id. Two processes that have one id by mistake, such
as containers with equal host names, then take it from each other for ever, and every turn answers requests again. One
takeover is usual: a process that came back elsewhere. After the second in a row a member gives the static id up and
joins as any other does.
"""

from __future__ import annotations

import msgspec

ALLOWED = 1
WITHIN_S = 60.0


class Takeovers(msgspec.Struct, frozen=True):
    """The moments (seconds of a clock that never runs backwards) at which another process took the id over."""

    at_s: tuple[float, ...] = ()

    def another(self, now_s: float) -> Takeovers:
        """It happened again. Those of more than a minute ago are forgotten."""
        return Takeovers((*(at_s for at_s in self.at_s if now_s - at_s <= WITHIN_S), now_s))

    @property
    def alternate(self) -> bool:
        """Whether to give the static id up."""
        return len(self.at_s) > ALLOWED
