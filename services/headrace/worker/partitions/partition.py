"""The worker's state of one requests partition, for one assignment of it.

Each part of the state changes by its own methods alone. A part's docstring says which stage calls which method.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.core.poison_pills import Trial
from headrace.kafka.columns import Columns
from headrace.kafka.group_assignment import FetchPosition
from headrace.kafka.interface import Consumer, TopicPartition
from headrace.model.compiling import kernel
from headrace_schemas.records import Attempt, Loss

NEVER = np.iinfo(np.int64).max
"""When a request without a time-out expires."""
MICROSECONDS = 1_000_000


def microseconds(seconds: float) -> int:
    """Whole microseconds: times that were taken one after the other stay in their order when they are added up."""
    return int(seconds * MICROSECONDS)


WAITING_BYTES = 16 << 20
"""Most bytes of a queue, whose requests are limited too: a few thousand of the largest are gigabytes."""


CAME_US: Final = 0
EXPIRES_MS: Final = 1
FORM: Final = 2


class Requests(msgspec.Struct, frozen=True, eq=False):
    """Consecutive fetched records. ``admitted`` is int64[3, n]: when each came (the clock's monotonic microseconds),
    when it expires (milliseconds since the Unix epoch, or NEVER), and its form (see ``request_values``).

    The record of a request that is too large to be kept has no value and says so in ``discarded``.
    """

    records: Columns
    admitted: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.records)

    @property
    def came_us(self) -> NDArray[np.int64]:
        found: NDArray[np.int64] = self.admitted[CAME_US]
        return found

    @property
    def expires_ms(self) -> NDArray[np.int64]:
        found: NDArray[np.int64] = self.admitted[EXPIRES_MS]
        return found

    @property
    def forms(self) -> NDArray[np.int64]:
        found: NDArray[np.int64] = self.admitted[FORM]
        return found

    def deadlines(self, ready_ms: float, end: int) -> tuple[int, int]:
        """How many expire before an answer is ready at ``ready_ms``, of those from the offset ``end`` on; and how many
        have a deadline and are in time.
        """
        return _deadlines(self.expires_ms, self.records.offsets, float(ready_ms), end)  # type: ignore[no-any-return]

    def part(self, begin: int, end: int) -> Requests:
        """The requests at the places from ``begin`` to ``end``, which is not included."""
        return Requests(self.records[begin:end], self.admitted[:, begin:end])

    @classmethod
    def joined(cls, parts: Sequence[Requests]) -> Requests:
        """One after the other in one."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            Columns.joined([part.records for part in parts]),
            np.concatenate([part.admitted for part in parts], axis=1),
        )

    def oldest(self) -> Oldest:
        """The first of them."""
        offset, timestamp = self.records.table[:2, 0].tolist()
        return Oldest(offset, timestamp, int(self.admitted[CAME_US, 0]) / MICROSECONDS)


class Oldest(NamedTuple):
    """The oldest request of several: its offset, its timestamp, and when it came (the clock's monotonic seconds)."""

    offset: int
    timestamp: int
    came_s: float


class Queue(FetchPosition):
    """Requests between fetch and batch. Resume calls ``begin``, fetch ``follows_on`` and ``put``, batch ``take``."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: deque[Requests] = deque()
        self.bytes = 0
        """Of the keys, values and headers of ``waiting``."""
        self._count = 0
        self.after = -1
        """Offset of the request before the first waiting one, as the log has it."""
        self.lost: Loss | None = None
        """Requests that retention deleted, to be said on the next answer."""

    def __len__(self) -> int:
        return self._count

    def fitting(self, first: int, most: int, most_bytes: int, ready_ms: float) -> tuple[int, int]:
        """As :meth:`headrace.core.batching.Queue.fitting`."""
        count = size = 0
        for part in self.waiting:
            if first >= len(part):
                first -= len(part)
                continue
            end = min(len(part), first + most - count)
            lengths, expires_ms = part.records.value_lengths, part.expires_ms
            fit, size = _fitting(lengths, expires_ms, float(ready_ms), first, end, size, most_bytes)
            count += fit - first
            if fit < end or count == most:
                break
            first = 0
        return count, size

    @property
    def oldest(self) -> Oldest:
        """Of one request at least."""
        return self.waiting[0].oldest()

    def begin(self, position: int, after: int, lost: Loss | None) -> None:
        """The resume position is known: fetch from it."""
        self.expected, self.after, self.lost = position, after, lost

    def put(self, requests: Requests) -> None:
        """Add the requests of a chunk."""
        self.waiting.append(requests)
        self._count += len(requests)
        self.bytes += int(requests.records.sizes.sum())
        self.expected = int(requests.records.offsets[-1]) + 1

    def take(self, count: int) -> tuple[Requests, int, Loss | None]:
        """Remove the ``count`` oldest requests. Returns them, the offset before them, and what to say as lost."""
        parts: list[Requests] = []
        left = count
        while left:
            part = self.waiting.popleft()
            if len(part) > left:
                self.waiting.appendleft(part.part(left, len(part)))
                part = part.part(0, left)
            parts.append(part)
            left -= len(part)
        requests = Requests.joined(parts)
        self._count -= count
        self.bytes -= int(requests.records.sizes.sum())
        after, lost = self.after, self.lost
        self.after, self.lost = int(requests.records.offsets[-1]), None
        return requests, after, lost

    def clear(self) -> None:
        """Drop what waits: the partition ends, or the worker drains."""
        self.waiting.clear()
        self.bytes = self._count = 0


class InFlight:
    """The slices that were cut and not yet acknowledged or given up. Batch calls ``begin``, publish ``send``; whoever
    has the slice last calls ``end``.
    """

    def __init__(self) -> None:
        self.slices = 0
        self.last: asyncio.Future[None] | None = None
        """Of the slice that was cut last: done when it is acknowledged or given up."""
        self.sending: asyncio.Task[None] | None = None
        self.oldest: dict[asyncio.Future[None], Oldest] = {}
        """The oldest request of each slice, in the order in which they were cut."""

    def begin(self, oldest: Oldest) -> tuple[asyncio.Future[None] | None, asyncio.Future[None]]:
        """A slice that begins with ``oldest`` was cut. Returns the future of the slice before it and its own."""
        before, self.last = self.last, asyncio.get_running_loop().create_future()
        self.oldest[self.last] = oldest
        self.slices += 1
        return before, self.last

    def send(self, task: asyncio.Task[None] | None) -> None:
        """``task`` hands a slice to the producer."""
        self.sending = task

    def end(self, done: asyncio.Future[None]) -> None:
        """The slice of ``done`` is acknowledged or given up."""
        self.slices -= 1
        self.oldest.pop(done, None)
        if not done.done():
            done.set_result(None)


class Progress:
    """How far the partition is answered. Resume calls ``begin`` and ``found``, publish ``answered``."""

    def __init__(self) -> None:
        self.position = 0
        """Behind the last acknowledged answer."""
        self.last = -1
        """Offset of the last answered request, or what the log says it was when this assignment began."""
        self.results_end = 0
        """Behind the last answer that is known to be in the results partition."""

    def take_over(self, old: Progress) -> None:
        self.position, self.results_end = old.position, old.results_end

    def begin(self, position: int, after: int) -> None:
        self.position, self.last = position, after

    def found(self, results_end: int) -> None:
        """The results partition was read to its end."""
        self.results_end = results_end

    def answered(self, offset: int, results_end: int) -> None:
        """The answers to the requests up to ``offset`` are acknowledged; the last is in front of ``results_end``."""
        self.last, self.position = offset, offset + 1
        self.results_end = results_end


class Attempts:
    """What a poison pill is found by (``core/poison_pills.py``). Resume calls ``plan``, batch the other methods."""

    def __init__(self) -> None:
        self.alone_through = -1
        """Requests up to this offset are tried alone."""
        self.condemned: int | None = None
        """Offset of the poison pill: it is answered ``failed`` untried."""
        self.planned: Attempt | None = None
        """To be written to the log before the first batch is tried."""
        self.known: Attempt | None = None
        """What is known to be in the log."""
        self.written: Attempt | None = None
        """What this process wrote last, or began to write. A clean release takes it back."""
        self.writing: asyncio.Future[None] | None = None
        """Done when the write that is under way has ended. A release waits for it."""
        self.evidence: Attempt | None = None
        """The attempt of a process that died, because of which requests are tried alone."""

    def take_over(self, old: Attempts) -> None:
        self.known, self.written, self.writing, self.evidence = old.known, old.written, old.writing, old.evidence

    def plan(self, trial: Trial) -> None:
        self.planned, self.evidence, self.alone_through = trial.attempt, trial.evidence, trial.alone_through
        self.condemned = trial.attempt.offset if trial.condemned else None

    def write(self) -> None:
        """The planned attempt may be in the log from now on."""
        self.written, self.writing = self.planned, asyncio.get_running_loop().create_future()

    def wrote(self, *, acknowledged: bool) -> None:
        """The write has ended. Without an acknowledgement nobody knows whether the attempt is in the log."""
        self.known = self.written if acknowledged else None
        if self.writing is not None:
            self.writing.set_result(None)
            self.writing = None


class Partition:
    """From assignment to revocation, or to a failed produce, after which a new one begins and resumes.

    ``alive`` ends for good; whoever awaited something looks at it again before acting. Each plain field has one writer:
    the assignment writes ``alive``, resume ``unanswerable``, the watchdog ``end_seen``, fetch ``settled``, commit
    ``committed``, and :class:`Backpressure` ``paused``.
    """

    def __init__(self, name: TopicPartition) -> None:
        self.name = name
        self.queue = Queue()
        self.in_flight = InFlight()
        self.progress = Progress()
        self.attempts = Attempts()
        self.alive = True
        self.unanswerable: str | None = None
        """Why its requests can't be answered until somebody mends it, in words."""
        self.end_seen: int | None = None
        """Where the log ended within about the last second; None when that is not known."""
        self.settled = 0
        """In front of it every request is answered; offsets in front of it may hold none."""
        self.committed = -1
        self.paused = False

    @property
    def resumed(self) -> bool:
        """Whether the position to go on from is known."""
        return self.queue.expected is not None

    @property
    def short_of_end(self) -> bool:
        """Whether every request that was fetched is answered, and yet the log does not end there."""
        answered = self.progress.position
        return self.end_seen is not None and answered == self.queue.expected and self.settled < self.end_seen

    def take_over(self, old: Partition) -> None:
        """Replace ``old``, whose partition this process still owns."""
        self.attempts.take_over(old.attempts)
        self.progress.take_over(old.progress)

    def begin(self, position: int, after: int, lost: Loss | None) -> None:
        """Resume calls it: the position to go on from is known."""
        self.queue.begin(position, after, lost)
        self.progress.begin(position, after)

    def end(self) -> None:
        """The assignment calls it: nothing more is cut or sent. Whoever ends a partition awaits what was sent."""
        self.alive = False
        self.queue.clear()


class Backpressure:
    """Pauses the fetching of a partition whose queue is full, until half of the queue is free.

    A queue is full with ``limit`` requests, or with WAITING_BYTES. Fetch tells what it added, batch what it took.
    """

    def __init__(self, consumer: Consumer, *, limit: int) -> None:
        self._consumer = consumer
        self._limit = limit

    def added(self, partition: Partition) -> None:
        """Requests were added to the queue."""
        queue = partition.queue
        if not partition.paused and (len(queue) >= self._limit or queue.bytes >= WAITING_BYTES):
            partition.paused = True
            self._consumer.pause([partition.name])

    def taken(self, partition: Partition) -> None:
        """Requests were taken from the queue."""
        queue = partition.queue
        half_free = len(queue) <= self._limit // 2 and queue.bytes <= WAITING_BYTES // 2
        if partition.paused and half_free and partition.alive:
            partition.paused = False
            self._consumer.resume([partition.name])


@kernel
def _fitting(lengths, expires_ms, ready_ms, at, end, size, most_bytes):  # type: ignore[no-untyped-def]
    """Behind the last request that fits, and the bytes then."""
    while at < end:
        # A value that is null has the length -1.
        more = 0 if expires_ms[at] < ready_ms else max(lengths[at], 0)
        if size + more > most_bytes:
            break
        size += more
        at += 1
    return at, size


@kernel
def _deadlines(expires_ms, offsets, ready_ms, end):  # type: ignore[no-untyped-def]
    expired = in_time = 0
    for i in range(len(offsets)):
        if expires_ms[i] < ready_ms:
            expired += offsets[i] >= end
        else:
            in_time += expires_ms[i] != NEVER
    return expired, in_time


def warm() -> None:
    """Load the kernels from numba's cache, or compile them."""
    nothing = np.zeros(1, np.int64)
    _fitting(nothing, nothing, 0.0, 0, 1, 0, 0)
    _deadlines(nothing, nothing, 0.0, 0)
