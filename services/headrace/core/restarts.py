"""Whether and when a process that ended is started again."""

from __future__ import annotations

import msgspec

EXIT_DONE = 0
EXIT_SETTINGS = 2
EXIT_REFUSED = 3
"""Going on needs a person: the log was cut or made anew, a results topic belongs to another group."""
EXIT_LATE = 4
"""What a command was to wait for did not come in the time that it was given."""

FINAL = frozenset({EXIT_DONE, EXIT_SETTINGS, EXIT_REFUSED})


class RestartPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Waits, in seconds, double from ``first`` to ``longest``; a run of ``healthy`` begins anew at ``first``."""

    first: float = 0.2
    longest: float = 30.0
    healthy: float = 60.0


class Restarts:
    """The restarts of one slot."""

    def __init__(self, policy: RestartPolicy) -> None:
        self._policy = policy
        self._failures = 0

    def after(self, exit_code: int, ran_s: float) -> float | None:
        """How long to wait before the next start, None when a new process would only end the same way."""
        if exit_code in FINAL:
            return None
        if ran_s >= self._policy.healthy:
            self._failures = 0
        # Past this many doublings any wait is over the longest; it keeps the power in a float's range.
        wait = self._policy.first * 2.0 ** min(self._failures, 64)
        self._failures += 1
        return min(wait, self._policy.longest)
