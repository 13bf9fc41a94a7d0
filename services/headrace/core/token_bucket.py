"""A quota as a bucket of tokens: what may be taken over time, and how much of it at once."""

from __future__ import annotations


class TokenBucket:
    """``rate`` tokens a second run into a bucket that holds ``burst``; times are seconds that never run backwards.

    Whoever asks for more than the bucket holds gets it once it is full, and leaves a debt: a large batch is not
    refused for ever, and over time nobody gets more than the rate.
    """

    def __init__(self, rate: float, burst: float, now_s: float) -> None:
        self._rate = rate
        self._burst = burst
        self._level = burst
        self._at_s = now_s

    def take(self, tokens: float, now_s: float) -> float:
        """Take ``tokens`` and return 0, or take none and return in how many seconds they are there."""
        if wait_s := self.wait_s(tokens, now_s):
            return wait_s
        self._level -= tokens
        return 0.0

    def wait_s(self, tokens: float, now_s: float) -> float:
        """In how many seconds ``tokens`` are there, 0 for now."""
        self._level = min(self._burst, self._level + (now_s - self._at_s) * self._rate)
        self._at_s = now_s
        needed = min(tokens, self._burst)
        # What is missing by a rounding error of the addition above is there.
        return (needed - self._level) / self._rate if self._level + 1e-9 < needed else 0.0
