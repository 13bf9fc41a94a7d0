"""Who guesses is told to come again: API keys by address, places of others by API key, or by address without keys."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from http import HTTPStatus
from ipaddress import IPv6Address, ip_address

from headrace.core.clock import Clock
from headrace.core.token_bucket import TokenBucket
from headrace.gateway.problems import ProblemError

MOST = 10_000
"""So many callers are known, of whom the one that was seen first goes first."""
MOST_GOOD = 16


class Guesser:
    """Of one caller: how much it may still guess, and digests of what it knew already."""

    __slots__ = ("bucket", "good")

    def __init__(self, bucket: TokenBucket) -> None:
        self.bucket = bucket
        self.good: OrderedDict[bytes, None] = OrderedDict()


class Guesses:
    """Wrong ``what`` may come ``per_minute`` times, of each caller; all that comes past that is refused unseen.

    What was right before is looked at all the same: a caller who shares an address with one who guesses is served.
    """

    def __init__(self, per_minute: int, what: str, clock: Clock) -> None:
        self._per_minute = per_minute
        self._what = what
        self._clock = clock
        self._callers: OrderedDict[str, Guesser] = OrderedDict()

    def __len__(self) -> int:
        return len(self._callers)

    def check(self, caller: str, guess: str = "") -> None:
        """Raise ProblemError (429) where ``caller`` has to wait, unless this guess was right before."""
        known = self._callers.get(caller)
        if known is None or not (wait_s := known.bucket.wait_s(1.0, self._clock.monotonic())):
            return
        if guess and _digest(guess) in known.good:
            return
        raise ProblemError(
            HTTPStatus.TOO_MANY_REQUESTS,
            "guessing",
            f"Too many {self._what} came from here; {self._per_minute} a minute are answered (gateway.guesses).",
            limit=self._per_minute,
            wait_s=wait_s,
        )

    def wrong(self, caller: str) -> None:
        """``caller`` was wrong once more."""
        self._of(caller).bucket.take(1.0, self._clock.monotonic())

    def right(self, caller: str, guess: str) -> None:
        """``caller`` knew ``guess``."""
        known = self._of(caller)
        digest = _digest(guess)
        if digest not in known.good:
            known.good[digest] = None
            if len(known.good) > MOST_GOOD:
                known.good.popitem(last=False)

    def _of(self, caller: str) -> Guesser:
        known = self._callers.get(caller)
        if known is None:
            bucket = TokenBucket(self._per_minute / 60, self._per_minute, self._clock.monotonic())
            known = self._callers[caller] = Guesser(bucket)
            if len(self._callers) > MOST:
                self._callers.popitem(last=False)
        return known


def address_of(client: tuple[str, int] | None) -> str:
    """By what a caller's address is known: of IPv6 the network of 64 bits, which one caller may have whole."""
    if client is None:
        return ""
    if ":" not in client[0]:
        return client[0]
    try:
        address = ip_address(client[0])
    except ValueError:
        return client[0]
    if isinstance(address, IPv6Address):
        return f"{IPv6Address(int(address) >> 64 << 64)}/64"
    return client[0]


def _digest(guess: str) -> bytes:
    return hashlib.sha256(guess.encode("utf-8", "surrogatepass")).digest()
