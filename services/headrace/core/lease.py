"""The lease: how long a member may act on partitions that the group gave it, without hearing from the group again.

The coordinator gives a member's partitions to another at the earliest a session time-out after it heard the member
last, or a rebalance time-out after it began a rebalance. Both count from a moment at the coordinator that is not before
the sending of the request whose answer says that all is well. So a lease that counts the shorter of the two from the
sending ends here before it ends there, whatever the network does, as long as both clocks run at one speed.

Only a heartbeat that is answered without an error renews it. A heartbeat that is answered "rebalance in progress"
keeps the session and not the rebalance from ending. A commit proves less: the coordinator takes commits of the old
generation all through a rebalance.
"""

from __future__ import annotations

import msgspec

Membership = tuple[str, int]
"""Member id and generation: what the coordinator tells members and their assignments apart by."""
NEVER = float("-inf")


class Lease(msgspec.Struct, frozen=True):
    """A lease of ``length_s`` seconds, counted from ``sent_s`` (of a clock that never runs backwards), for ``of``."""

    length_s: float
    of: Membership | None = None
    sent_s: float = NEVER

    def begun(self, of: Membership, sent_s: float) -> Lease:
        """The group took a SyncGroup request that was sent at ``sent_s``: a new generation."""
        return Lease(self.length_s, of, sent_s)

    def renewed(self, of: Membership, sent_s: float) -> Lease:
        """The group answered a heartbeat, sent at ``sent_s`` for ``of``, without an error.

        An answer for an older generation, or one that was overtaken by a later heartbeat's, changes nothing.
        """
        return Lease(self.length_s, of, sent_s) if of == self.of and sent_s > self.sent_s else self

    def ended(self) -> Lease:
        """The group has told that this member is none any more."""
        return Lease(self.length_s)

    def left_s(self, now_s: float) -> float:
        """Seconds that it lasts from ``now_s`` on; 0 when it has run out or there was none."""
        return max(0.0, self.sent_s + self.length_s - now_s)


def lease_of(*, session_s: float, rebalance_s: float) -> Lease:
    """The lease, not begun yet, of a member with these time-outs."""
    return Lease(min(session_s, rebalance_s))
