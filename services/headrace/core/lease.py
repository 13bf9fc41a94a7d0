"""The lease: how long a member may act on its partitions without hearing from its group again.

The coordinator gives a member's partitions to another one at the earliest a session time-out after it last heard the
member, or a rebalance time-out after it began a rebalance. Both times begin at the coordinator, and not before the
member sent the request whose answer says that all is well. So a lease that counts the shorter time-out from that
sending ends at the member before it ends at the coordinator, whatever the network does, as long as both clocks run at
the same speed.

Only a heartbeat that is answered without an error renews the lease. The answer "rebalance in progress" extends the
session, but not the rebalance. A commit proves less: the coordinator takes commits of the old generation during a whole
rebalance.
"""

from __future__ import annotations

import msgspec

Membership = tuple[str, int]
"""Member id and generation, by which the coordinator tells members and their assignments apart."""
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

        An answer for an older generation changes nothing, nor does one that a later heartbeat's answer has overtaken.
        """
        return Lease(self.length_s, of, sent_s) if of == self.of and sent_s > self.sent_s else self

    def ended(self) -> Lease:
        """The group answered that this process is no member any more."""
        return Lease(self.length_s)

    def left_s(self, now_s: float) -> float:
        """For how many seconds after ``now_s`` it lasts; 0 when it has ended or never began."""
        return max(0.0, self.sent_s + self.length_s - now_s)


def lease_of(*, session_s: float, rebalance_s: float) -> Lease:
    """The lease, not begun yet, of a member with these time-outs."""
    return Lease(min(session_s, rebalance_s))
