"""Publishes the texts of all calls, a partition's batch after batch: what comes while one is under way is the next.

So a busy gateway sends large batches, and an idle one sends at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
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
TOGETHER = 256
"""So many texts of a call go to one partition together; of more, each partition gets a part."""
STAYS_S = 0.05
"""So long texts of small calls go to one partition: a batch costs Kafka, worker and gateway nearly as much for one."""


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
    """Of partition ``number``. Its queue is bounded by who may put into it."""

    def __init__(self, number: int, publisher: Publisher, follower: AnswerFollower, clock: Clock) -> None:
        self._clock = clock
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
            self._sending = asyncio.create_task(self._send_all(), name=f"send to {self._number}")

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
    """The senders of all partitions, and which of them texts go to: those of ``owned``, which this gateway reads."""

    def __init__(
        self, publisher: Publisher, follower: AnswerFollower, clock: Clock, owned: Callable[[], Collection[int]]
    ) -> None:
        self._publisher = publisher
        self._follower = follower
        self._clock = clock
        self._owned = owned
        self._senders: dict[int, PartitionSender] = {}
        self._turn = 0
        self._few = 0
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
            few = len(unkeyed) < TOGETHER
            parts = [self._partition_of_few()] if few else self._own_partitions()
            size = max(TOGETHER, -(-len(unkeyed) // len(parts)))
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
                sender = PartitionSender(number, self._publisher, self._follower, self._clock)
                self._senders[number] = sender
            sender.put(queued)

    async def stop(self) -> None:
        """End; what is queued is not published."""
        for sender in self._senders.values():
            await sender.stop()

    def _partition_of_few(self) -> int:
        """Where few texts go: for STAYS_S to one partition, so that they share a batch with what others send meanwhile;
        then, or where enough are queued there, to the least busy one.
        """
        now_s = self._clock.monotonic()
        if now_s >= self._stays_until_s or self._queued(self._few) >= TOGETHER:
            self._few = self._own_partitions()[0]
            self._stays_until_s = now_s + STAYS_S
        return self._few

    def _own_partitions(self) -> list[int]:
        """Where texts without a key go: the least busy first. While the group has given none, any."""
        owned = self._owned()
        own = [number for number in self.partitions if number in owned] or list(self.partitions)
        self._turn += 1
        turned = [own[(at + self._turn) % len(own)] for at in range(len(own))]
        return sorted(turned, key=self._queued)

    def _queued(self, number: int) -> int:
        sender = self._senders.get(number)
        return 0 if sender is None else sender.queued


class UnpublishedError(Exception):
    """It failed before anything was handed over."""


def _refuse(queued: Iterable[Queued], why: Unanswered) -> None:
    for one in queued:
        one.end(why)
