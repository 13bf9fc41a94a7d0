"""Which waiting requests make the next batch: it is work-conserving, fair to all partitions, and bounded in records and
bytes.

There is no timer. While the model is busy requests gather; when it is free it takes the waiting ones, up to
``max_records`` and ``max_bytes`` (bytes stand for tokens, because they are known without decoding).
text-embeddings-inference does the same (queue.rs), with padding, which the folded network does not need.

:class:`ServiceTime` predicts how long a batch takes, and :class:`ClockAlarm` tells a wrong clock from late answers.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Protocol

import msgspec

SHARERS = 4
"""At most so many queues share a full batch. Publishing the requests of a queue costs nearly the same for few as for
many, so many deep queues take turns instead of sharing every batch.
"""


class Closed(enum.StrEnum):
    """Why a batch took no further request."""

    DRAINED = "drained"
    FULL = "full"
    BYTES = "bytes"
    ALONE = "alone"
    """Not by this policy: a record over which a process died is tried alone."""


class Queue(Protocol):
    """The waiting requests of one partition, oldest first."""

    def __len__(self) -> int: ...
    def fitting(self, first: int, most: int, most_bytes: int, ready_ms: float) -> tuple[int, int]:
        """How many of the ``most`` requests from the place ``first`` on have at most ``most_bytes`` together, and their
        bytes. A request that is late at ``ready_ms`` will not reach the model and has none. ``most_bytes`` below 0 has
        no room even for that.
        """


class Cut(msgspec.Struct, frozen=True):
    """The batch takes ``taken[i]`` requests from the front of queue i; ``closed`` says why it took no more."""

    taken: tuple[int, ...]
    closed: Closed


def cut(queues: Sequence[Queue], *, max_records: int, max_bytes: int, ready_ms: float, first: int = 0) -> Cut:
    """Divide ``max_records`` over the queues: equal parts first, and the rest to queues that hold more. The answers are
    expected at ``ready_ms``.

    With more than SHARERS queues, some get no part of a full batch; :func:`next_first` begins with these. ``first`` is
    the queue to begin with. A request larger than ``max_bytes`` is taken alone, when it comes first: otherwise it would
    wait for ever.
    """
    taken = [0] * len(queues)
    first %= max(1, len(queues))
    order = (*range(first, len(queues)), *range(first))
    served = [index for index in order if len(queues[index])]
    records, bytes_left = max_records, max_bytes
    least = -(-max_records // SHARERS) if len(served) > SHARERS else 1
    while served and records:
        share = max(least, records // len(served))
        for index in list(served):
            asked = min(share, records)
            waiting = min(asked, len(queues[index]) - taken[index])
            count, size = queues[index].fitting(taken[index], waiting, bytes_left, ready_ms)
            if not count and waiting and records == max_records:
                count, size = 1, max_bytes + 1
            taken[index] += count
            records -= count
            bytes_left -= size
            if count < waiting:
                return Cut(tuple(taken), Closed.BYTES)
            if waiting < asked:
                served.remove(index)
            if not records:
                break
    drained = all(count == len(queue) for count, queue in zip(taken, queues, strict=True))
    return Cut(tuple(taken), Closed.DRAINED if drained else Closed.FULL)


def next_first(taken: Sequence[int], first: int) -> int:
    """The queue that the next cut begins with, so that none waits longer than one round of all.

    The first queue behind those that were served. When all were served, the next one, so that no queue is always served
    last.
    """
    served = sum(count > 0 for count in taken)
    return first + (served if 0 < served < len(taken) else 1)


REACH = 16
"""Up to how many times the mean batch a prediction reaches."""


class ServiceTime:
    """T(n) = a n + b: seconds for a batch of n requests, fitted by least squares that forgets exponentially.

    ``memory`` is the weight that an observation keeps when the next one comes; 0.98 is about the last 50 batches. A
    batch of more than REACH times the mean is predicted as one of REACH times the mean: nothing is known of such
    batches, and most of the time of a small batch does not grow with it. Too long a prediction would let good requests
    expire.
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
        """The seconds that a batch of ``requests`` will take; 0 before the first observation."""
        if not self._weight:
            return 0.0
        mean_n, mean_t = self._n / self._weight, self._t / self._weight
        known = min(requests, REACH * mean_n)
        variance = self._nn / self._weight - mean_n * mean_n
        # Batches of one size don't show the slope. Then the whole time counts as proportional to the size.
        if variance <= 1e-9 * max(1.0, mean_n * mean_n):
            slope = mean_t / max(mean_n, 1.0)
        else:
            slope = max(0.0, (self._nt / self._weight - mean_n * mean_t) / variance)
        return max(0.0, mean_t + slope * (known - mean_n))


class ClockAlarm(msgspec.Struct):
    """Notices when requests expire although none waits: then a clock is wrong, and not the load too high.

    It is raised once after ``after`` expired requests in a row, each of which was the newest of its partition when its
    batch was cut. A request that meets its deadline ends the row, and so does a lag.
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
