"""What is said when a static membership id is given up, whatever the backend."""

from __future__ import annotations

from headrace.logs import event


def static_id_given_up(group: str, member: str | None) -> None:
    """Two processes have one static id and threw each other out; this one joins without it from now on."""
    event(
        "member.static_id_given_up",
        level="warning",
        group=group,
        member=member,
        why="another process has the same static membership id, and both threw each other out: this one goes on "
        "without it. Its next restart will cost a rebalance",
    )
