"""Publishes the texts of all calls, a partition's batch after batch: what comes while one is under way is the next.

A batch costs Kafka, worker and gateway some milliseconds of CPU in all, however few texts it has. So a busy gateway
gathers texts for large batches, and an idle one sends at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextvars import Context
from typing import NamedTuple

from headrace.client.arguments import ClientClosedError
from headrace.client.publishing import Publisher
from headrace.core.clock import Clock
from headrace.core.errors import words_of
from headrace.gateway.answer_follower import AnswerFollower
from headrace.gateway.batches import UNKNOWN, UNPUBLISHED, Batch, Unanswered
from headrace.kafka.aio.producer import partition_of_key
from headrace.kafka.interface import KafkaError, Outgoing, passes
from headrace.process.logs import event

MOST_RECORDS = 2000
MOST_BYTES = 4 * 1024 * 1024
TOGETHER = 1024
"""So many texts go to one partition together. Of a call with more, each partition gets a part."""
LEAST = 256
"""Such a part has so many texts at least."""
STAYS_S = 0.05
"""So long texts of smaller calls go to one partition, if they are not so many before."""
BUSY = 16
"""When so many texts wait for answers, others come soon: their callers' next ones."""
GATHERS_S = 0.005
"""So long a busy gateway gathers texts for a batch, unless half of all that wait are there."""


class Queued(NamedTuple):
    """Texts of ``batch`` by their ``numbers``, as the records that are to be published, in this order."""

    batch: Batch
    numbers: Sequence[int]
    records: Sequence[Outgoing]

    def end(self, why: Unanswered) -> None:
        """None of them is published."""
        for number in self.numbers:
            if self.batch.places[number] is None:
                self.batch.end(number, why)


class PartitionSender:
    """Of partition ``number``. Its queue is bounded by who may put into it; ``waiting`` says how many texts wait for
    answers in this gateway, those that are queued too.
    """

    def __init__(
        self, number: int, publisher: Publisher, follower: AnswerFollower, clock: Clock, waiting: Callable[[], int]
    ) -> None:
        self._clock = clock
        self._waiting = waiting
        self._number = number
        self._publisher = publisher
        self._follower = follower
        self._queue: deque[Queued] = deque()
        self._sending: asyncio.Task[None] | None = None
        self.queued = 0
        """Records that wait to be sent."""

    def put(self, queued: Queued) -> None:
        """Publish them, in their order, behind those that were put before."""
        self._queue.append(queued)
        self.queued += len(queued.records)
        if self._sending is None or self._sending.done():
            # A context of its own: it sends for many calls, and belongs to the span of none.
            self._sending = asyncio.create_task(self._send_all(), name=f"send to {self._number}", context=Context())

    async def stop(self) -> None:
        """End; what is queued is not published."""
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.wait([self._sending])
        _refuse(self._queue, Unanswered(UNPUBLISHED, "the gateway ends"))
        self._queue.clear()
        self.queued = 0

    async def _send_all(self) -> None:
        while self._queue:
            waiting = self._waiting()
            if waiting >= BUSY and self.queued < min(TOGETHER, waiting / 2):
                await self._clock.sleep(GATHERS_S)
            taken = self._taken()
            if not taken:
                continue
            try:
                await self._send(taken)
            except UnpublishedError as error:
                _refuse(taken, Unanswered(UNPUBLISHED, str(error)))
            except (KafkaError, ClientClosedError) as error:
                unknown = not isinstance(error, KafkaError) or passes(error)
                _refuse(taken, Unanswered(UNKNOWN if unknown else UNPUBLISHED, str(error)))
            except asyncio.CancelledError:
                _refuse(taken, Unanswered(UNKNOWN, "the gateway ended while it published"))
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, who waits has to hear of it
                event("gateway.publish_failed", level="error", error=words_of(error), exception=error)
                _refuse(taken, Unanswered(UNKNOWN, words_of(error)))

    def _taken(self) -> list[Queued]:
        """The next records to send, without those that nobody waits for any more."""
        taken: list[Queued] = []
        left, left_bytes = MOST_RECORDS, MOST_BYTES
        while self._queue and left > 0 and left_bytes > 0:
            one = self._queue.popleft()
            if one.batch.abandoned:
                one.end(Unanswered(UNPUBLISHED, "nobody waits for it any more"))
            else:
                fits = 0
                for record in one.records[:left]:
                    fits += 1
                    left_bytes -= len(record.value or b"")
                    if left_bytes <= 0:
                        break
                left -= fits
                if fits < len(one.records):
                    self._queue.appendleft(Queued(one.batch, one.numbers[fits:], one.records[fits:]))
                    one = Queued(one.batch, one.numbers[:fits], one.records[:fits])
                taken.append(one)
            self.queued -= len(one.records)
        return taken

    async def _send(self, taken: list[Queued]) -> None:
        number = self._number
        try:
            await self._follower.begin([number])
        except KafkaError as error:
            raise UnpublishedError(str(error)) from error
        now_s = self._clock.monotonic()
        if late := [one for one in taken if one.batch.until_s is not None and one.batch.until_s < now_s]:
            _refuse(late, Unanswered(UNPUBLISHED, "it could not be published in time"))
            taken = [one for one in taken if one.batch.until_s is None or one.batch.until_s >= now_s]
            if not taken:
                return
        with self._follower.publishing(number):
            offsets = await self._publisher.publish_to(number, [record for one in taken for record in one.records])
            at = 0
            for batch, numbers, records in taken:
                of_it = offsets[at : at + len(records)]
                at += len(records)
                batch.place(numbers, number, of_it)
                if batch.waits and not batch.abandoned:
                    self._follower.expect(number, of_it, records, batch, numbers)


class Senders:
    """The senders of all partitions, and which of them texts go to: those of ``owned``, which this gateway reads.

    ``waiting`` is as in a PartitionSender.
    """

    def __init__(
        self,
        publisher: Publisher,
        follower: AnswerFollower,
        clock: Clock,
        *,
        owned: Callable[[], Collection[int]],
        waiting: Callable[[], int],
    ) -> None:
        self._publisher = publisher
        self._follower = follower
        self._clock = clock
        self._owned = owned
        self._waiting = waiting
        self._senders: dict[int, PartitionSender] = {}
        self._turn = 0
        self._few = 0
        self._together = 0
        self._stays_until_s = 0.0
        self.partitions: tuple[int, ...] = ()
        """Those of the requests."""

    def divided(self, batch: Batch, records: Sequence[Outgoing]) -> dict[int, Queued]:
        """Where each text goes: to the partition of its key, or to some of those that this gateway reads."""
        by_partition: dict[int, list[int]] = {}
        unkeyed: list[int] = []
        for number, record in enumerate(records):
            if record.key is None:
                unkeyed.append(number)
            else:
                by_partition.setdefault(partition_of_key(record.key, len(self.partitions)), []).append(number)
        if unkeyed:
            few = len(unkeyed) <= TOGETHER
            parts = [self._partition_of_few(len(unkeyed))] if few else self._own_partitions()
            size = len(unkeyed) if few else max(LEAST, -(-len(unkeyed) // len(parts)))
            for part, at in enumerate(range(0, len(unkeyed), size)):
                by_partition.setdefault(parts[part], []).extend(unkeyed[at : at + size])
        return {
            partition: Queued(batch, numbers, [records[number] for number in numbers])
            for partition, numbers in by_partition.items()
        }

    def put(self, parts: Mapping[int, Queued]) -> None:
        """Publish texts by their partitions."""
        for number, queued in parts.items():
            if not queued.records:
                continue
            if (sender := self._senders.get(number)) is None:
                sender = PartitionSender(number, self._publisher, self._follower, self._clock, self._waiting)
                self._senders[number] = sender
            sender.put(queued)

    async def stop(self) -> None:
        """End; what is queued is not published."""
        for sender in self._senders.values():
            await sender.stop()

    def _partition_of_few(self, count: int) -> int:
        """Where ``count`` texts go, so that they share a batch with what others send meanwhile."""
        now_s = self._clock.monotonic()
        if now_s >= self._stays_until_s or self._together >= TOGETHER:
            self._few = self._own_partitions()[0]
            self._together = 0
            self._stays_until_s = now_s + STAYS_S
        self._together += count
        return self._few

    def _own_partitions(self) -> list[int]:
        """Where texts without a key go: the least busy first. While the group has given none, any."""
        owned = self._owned()
        own = [number for number in self.partitions if number in owned] or list(self.partitions)
        self._turn += 1
        turned = [own[(at + self._turn) % len(own)] for at in range(len(own))]
        return sorted(turned, key=lambda number: sender.queued if (sender := self._senders.get(number)) else 0)


class UnpublishedError(Exception):
    """It failed before anything was handed over."""


def _refuse(queued: Iterable[Queued], why: Unanswered) -> None:
    for one in queued:
        one.end(why)
