"""Which waiting requests make the next batch: work-conserving, fair across partitions, bounded twice.

There is no timer. While the model is busy requests gather; when it is free it takes what waits, up to ``max_records``
and ``max_bytes`` (bytes of text stand for tokens: they are known without decoding). The habit is that of
text-embeddings-inference (queue.rs), without its padding, which the folded network does not need.

How long a batch takes, fitted online, and whether it is the clocks that are late rather than the answers.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from typing import Protocol

import msgspec

SHARERS = 8
"""Queues that share a full batch at most. What it costs to publish one queue's requests hardly depends on how many they
are, so many deep queues take turns instead of sharing every batch."""


class Closed(enum.StrEnum):
    """Why a batch took no more."""

    DRAINED = "drained"
    FULL = "full"
    BYTES = "bytes"
    ALONE = "alone"
    """Not by this policy: a record over which a process died is tried by itself."""


class Queue(Protocol):
    """The waiting requests of one partition, oldest first."""

    def __len__(self) -> int: ...
    def sizes(self) -> Iterator[int]:
        """The size in bytes of each waiting request that will reach the model, in order; 0 for one that won't."""


class Cut(msgspec.Struct, frozen=True):
    """``taken[i]`` requests from the front of queue i, and why the batch took no more."""

    taken: tuple[int, ...]
    closed: Closed


def cut(queues: Sequence[Queue], *, max_records: int, max_bytes: int, first: int = 0) -> Cut:
    """Share ``max_records`` over the queues, equal parts first, what is left over then to those with more.

    Of more than SHARERS queues not every one gets a part of a full batch; :func:`next_first` begins with those that got
    none. ``first`` is the queue to begin with. A request larger than ``max_bytes`` is taken when it
    is the first, alone: otherwise it would wait for ever.
    """
    taken = [0] * len(queues)
    order = [(first + step) % len(queues) for step in range(len(queues))] if queues else []
    walks = {index: queues[index].sizes() for index in order if len(queues[index])}
    records, bytes_left = max_records, max_bytes
    least = -(-max_records // SHARERS) if len(walks) > SHARERS else 1
    while walks and records:
        share = max(least, records // len(walks))
        for index in list(walks):
            for _ in range(min(share, records)):
                size = next(walks[index], None)
                if size is None:
                    del walks[index]
                    break
                if size > bytes_left and records < max_records:
                    return Cut(tuple(taken), Closed.BYTES)
                taken[index] += 1
                records -= 1
                bytes_left -= size
            if not records:
                break
    drained = sum(taken) == sum(len(queue) for queue in queues)
    return Cut(tuple(taken), Closed.DRAINED if drained else Closed.FULL)


def next_first(taken: Sequence[int], first: int) -> int:
    """The queue that the next cut begins with, so that none waits longer than one round of all.

    Behind those that were served; when all were, one further, so that none is always served last.
    """
    served = sum(count > 0 for count in taken)
    return first + (served if 0 < served < len(taken) else 1)


REACH = 16
"""How many times the mean batch may be predicted."""


class ServiceTime:
    """T(n) = a n + b: seconds for a batch of n requests, fitted by least squares that forgets exponentially.

    ``memory`` is the weight that an observation keeps when the next one comes; 0.98 is about the last 50 batches.
    A batch of more than REACH times the mean is predicted as one of so many: nothing is known of such batches, and
    most of the time that one request takes is that of any batch. Who predicts too much lets good requests expire.
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
        known = min(requests, REACH * mean_n)
        variance = self._nn / self._weight - mean_n * mean_n
        # Batches of one size say nothing of the slope; then the whole time counts as proportional to the size.
        if variance <= 1e-9 * max(1.0, mean_n * mean_n):
            slope = mean_t / max(mean_n, 1.0)
        else:
            slope = max(0.0, (self._nt / self._weight - mean_n * mean_t) / variance)
        return max(0.0, mean_t + slope * (known - mean_n))


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
