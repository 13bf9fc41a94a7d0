"""How long a batch takes, fitted online, and whether it is the clocks that are late rather than the answers."""

from __future__ import annotations

import msgspec


class ServiceTime:
    """T(n) = a n + b: seconds for a batch of n requests, fitted by least squares that forgets exponentially.

    ``memory`` is the weight that an observation keeps when the next one comes; 0.98 is about the last 50 batches.
    """

    __slots__ = ("_memory", "_n", "_nn", "_nt", "_t", "_weight")

    def __init__(self, memory: float = 0.98) -> None:
        self._memory = memory
        self._weight = self._n = self._nn = self._t = self._nt = 0.0

    def observe(self, requests: int, seconds: float) -> None:
        """Take one finished batch."""
        keep = self._memory
        self._weight = keep * self._weight + 1.0
        self._n = keep * self._n + requests
        self._nn = keep * self._nn + requests * requests
        self._t = keep * self._t + seconds
        self._nt = keep * self._nt + requests * seconds

    def predict(self, requests: int) -> float:
        """Seconds that a batch of ``requests`` will take, 0 before anything was observed."""
        if not self._weight:
            return 0.0
        mean_n, mean_t = self._n / self._weight, self._t / self._weight
        variance = self._nn / self._weight - mean_n * mean_n
        # Batches of one size say nothing of the slope; then the whole time counts as proportional to the size.
        if variance <= 1e-9 * max(1.0, mean_n * mean_n):
            slope = mean_t / max(mean_n, 1.0)
        else:
            slope = max(0.0, (self._nt / self._weight - mean_n * mean_t) / variance)
        return max(0.0, mean_t + slope * (requests - mean_n))


class ClockAlarm(msgspec.Struct):
    """Says when requests expire although nothing waits: then a clock is wrong, not the load.

    ``after`` expired requests in a row, each of them new in its partition's log when it was cut, raise it once; one
    request with a deadline that is in time ends the row, and so does a queue.
    """

    after: int = 100
    in_a_row: int = 0

    def observe(self, *, expired: int, in_time: int, lagging: bool) -> bool:
        """Take one batch's counts; true when the alarm is to be raised now."""
        if in_time or lagging:
            self.in_a_row = 0
            return False
        before = self.in_a_row
        self.in_a_row += expired
        return before < self.after <= self.in_a_row
