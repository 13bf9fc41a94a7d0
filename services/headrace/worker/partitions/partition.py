"""The worker's state of one requests partition, for one assignment of it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator

import msgspec

from headrace.kafka.interface import Consumer, Record, TopicPartition
from headrace_schemas.records import Attempt, Loss

NEVER = float("inf")
WAITING_BYTES = 16 << 20
"""Most bytes of a queue, whose requests are limited too: a few thousand of the largest are gigabytes."""


class Request(msgspec.Struct, frozen=True, gc=False):
    """A fetched record, when it came (the clock's monotonic seconds), its bytes, and when it expires (milliseconds
    since the Unix epoch).

    Of a record that is too large to be kept, ``record`` says so by ``discarded`` and has no value.
    """

    record: Record
    came_s: float
    size: int
    expires_ms: float = NEVER

    def late(self, ready_ms: float) -> bool:
        """Whether an answer that is ready at ``ready_ms`` comes too late."""
        return self.expires_ms < ready_ms


class Partition:
    """From assignment to revocation (or to a failed produce, after which a new one begins and resumes).

    ``alive`` ends for good; whoever awaited something looks at it again before acting. ``expected`` is the next
    offset to fetch, None until the resume position is known.
    """

    def __init__(self, name: TopicPartition) -> None:
        self.name = name
        self.alive = True
        self.expected: int | None = None
        self.unanswerable: str | None = None
        """Why its requests can't be answered until somebody mends it, in words."""
        self.after = -1
        """Offset of the request before the first waiting one, as the log has it."""
        self.lost: Loss | None = None
        """Said on the next answer."""
        self.waiting: deque[Request] = deque()
        self.waiting_bytes = 0
        """Of their keys, values and headers."""
        self.paused = False
        self.gap: tuple[int, int] | None = None
        """(expected, first offset fetched) of a gap seen once."""
        self.in_work = 0
        """Slices cut and not yet acknowledged."""
        self.done: asyncio.Future[None] | None = None
        """Of the slice cut last: resolved when it is acknowledged or given up."""
        self.sending: asyncio.Task[None] | None = None
        self.position = 0
        """Behind the last acknowledged answer."""
        self.last = -1
        """Offset of the last answered request, or what the log says it was when this assignment began."""
        self.settled = 0
        """In front of it every request is answered; offsets in front of it may hold none."""
        self.alone_through = -1
        self.condemned: int | None = None
        self.attempt: Attempt | None = None
        """To be written to the log before the first batch is tried."""
        self.stands: Attempt | None = None
        """What this process has written of its attempts, to be taken back when the partition is given up cleanly."""
        self.answered_to = 0
        """Behind the last answer that is known to be in the results partition."""
        self.evidence: Attempt | None = None
        """The attempt of a process that died, which made those up to ``alone_through`` suspect."""
        self.committed = -1
        self.end_seen: int | None = None
        """Where the log ended within about the last second; None when that is not known."""

    def is_new(self, offset: int) -> bool:
        """Whether the request came since the end of the log was last looked at, as far as that is known."""
        return self.end_seen is not None and offset >= self.end_seen

    @property
    def short_of_end(self) -> bool:
        """Whether every request that was fetched is answered, and yet the log does not end there."""
        return self.end_seen is not None and self.position == self.expected and self.settled < self.end_seen

    def follow(self, old: Partition) -> None:
        """Take the place of ``old``, whose partition this process still owns."""
        self.stands, self.evidence = old.stands, old.evidence
        self.position, self.answered_to = old.position, old.answered_to

    def begin(self, position: int, after: int, lost: Loss | None) -> None:
        """The resume position is known: fetch from it."""
        self.expected = position
        self.after = after
        self.lost = lost
        self.position = self.settled = position
        self.last = after

    def answered(self, offset: int) -> None:
        """The answer to the request at ``offset``, and to all before it, is acknowledged."""
        self.last = offset
        self.position = offset + 1

    def end(self) -> None:
        """Nothing of this assignment is cut or sent any more; what was sent is awaited by who ended it."""
        self.alive = False
        self.waiting.clear()

    def finish(self, done: asyncio.Future[None]) -> None:
        """A slice is no longer in work, acknowledged or given up."""
        self.in_work -= 1
        if not done.done():
            done.set_result(None)

    def take(self, count: int) -> list[Request]:
        """Remove the ``count`` oldest waiting requests."""
        taken = [self.waiting.popleft() for _ in range(count)]
        self.waiting_bytes -= sum(request.size for request in taken)
        return taken


class Queued(msgspec.Struct, frozen=True):
    """A partition's waiting requests as the batching policy sees them at ``ready_ms``."""

    partition: Partition
    ready_ms: float

    def __len__(self) -> int:
        return len(self.partition.waiting)

    def sizes(self) -> Iterator[int]:
        for request in self.partition.waiting:
            value = request.record.value
            yield 0 if value is None or request.late(self.ready_ms) else len(value)


class Backpressure:
    """Pauses the fetching of a partition whose queue is full, until half of the queue is free.

    A queue is full with ``limit`` requests, or with WAITING_BYTES. Fetch tells what it added, batch what it took.
    """

    def __init__(self, consumer: Consumer, *, limit: int) -> None:
        self._consumer = consumer
        self._limit = limit

    def added(self, partition: Partition) -> None:
        """Requests were added to the queue."""
        full = len(partition.waiting) >= self._limit or partition.waiting_bytes >= WAITING_BYTES
        if full and not partition.paused:
            partition.paused = True
            self._consumer.pause([partition.name])

    def taken(self, partition: Partition) -> None:
        """Requests were taken from the queue."""
        if not partition.paused or not partition.alive:
            return
        if len(partition.waiting) <= self._limit // 2 and partition.waiting_bytes <= WAITING_BYTES // 2:
            partition.paused = False
            self._consumer.resume([partition.name])
