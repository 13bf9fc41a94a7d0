"""Publishes the texts of all calls to one partition, batch after batch: what comes while one is under way is the next.

So a busy gateway sends large batches without waiting for them to fill, and an idle one sends at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from headrace.client.arguments import ClientClosedError
from headrace.client.publishing import Publisher
from headrace.core.clock import Clock
from headrace.core.errors import words_of
from headrace.gateway.answer_follower import AnswerFollower
from headrace.gateway.batches import UNKNOWN, UNPUBLISHED, Batch, Unanswered
from headrace.kafka.interface import KafkaError, Outgoing, passes
from headrace.process.logs import event

MOST_RECORDS = 2000
MOST_BYTES = 4 * 1024 * 1024


class Queued(NamedTuple):
    """Text ``number`` of ``batch``, as the record that is to be published."""

    record: Outgoing
    batch: Batch
    number: int


class PartitionSender:
    """Of partition ``number``. Its queue is bounded by who may put into it."""

    def __init__(self, number: int, publisher: Publisher, follower: AnswerFollower, clock: Clock) -> None:
        self._clock = clock
        self._number = number
        self._publisher = publisher
        self._follower = follower
        self._queue: deque[Queued] = deque()
        self._sending: asyncio.Task[None] | None = None

    @property
    def queued(self) -> int:
        """Records that wait to be sent."""
        return len(self._queue)

    def put(self, queued: Iterable[Queued]) -> None:
        """Publish them, in their order, behind those that were put before."""
        self._queue.extend(queued)
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send_all(), name=f"send to {self._number}")

    async def stop(self) -> None:
        """End; what is queued is not published."""
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.wait([self._sending])
        self._refuse(list(self._queue), Unanswered(UNPUBLISHED, "the gateway ends"))
        self._queue.clear()

    async def _send_all(self) -> None:
        while self._queue:
            taken = self._taken()
            if not taken:
                continue
            try:
                await self._send(taken)
            except UnpublishedError as error:
                self._refuse(taken, Unanswered(UNPUBLISHED, str(error)))
            except (KafkaError, ClientClosedError) as error:
                unknown = not isinstance(error, KafkaError) or passes(error)
                self._refuse(taken, Unanswered(UNKNOWN if unknown else UNPUBLISHED, str(error)))
            except asyncio.CancelledError:
                self._refuse(taken, Unanswered(UNKNOWN, "the gateway ended while it published"))
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, who waits has to hear of it
                event("gateway.publish_failed", level="error", error=words_of(error), exception=error)
                self._refuse(taken, Unanswered(UNKNOWN, words_of(error)))

    def _taken(self) -> list[Queued]:
        """The next records to send, without those that nobody waits for any more."""
        taken: list[Queued] = []
        size = 0
        while self._queue and len(taken) < MOST_RECORDS and size < MOST_BYTES:
            one = self._queue.popleft()
            if one.batch.abandoned:
                one.batch.end(one.number, Unanswered(UNPUBLISHED, "nobody waits for it any more"))
            else:
                taken.append(one)
                size += len(one.record.value or b"")
        return taken

    async def _send(self, taken: list[Queued]) -> None:
        number = self._number
        try:
            await self._follower.begin([number])
        except KafkaError as error:
            raise UnpublishedError(str(error)) from error
        now_s = self._clock.monotonic()
        if late := [one for one in taken if one.batch.until_s is not None and one.batch.until_s < now_s]:
            self._refuse(late, Unanswered(UNPUBLISHED, "it could not be published in time"))
            taken = [one for one in taken if one.batch.until_s is None or one.batch.until_s >= now_s]
            if not taken:
                return
        with self._follower.publishing(number):
            published = await self._publisher.publish_batch([one.record for one in taken], number)
            for one, where in zip(taken, published, strict=True):
                one.batch.place(one.number, (number, where.offset))
                if one.batch.waits and not one.batch.abandoned:
                    self._follower.expect(number, where.offset, where.crc, one.batch, one.number)

    @staticmethod
    def _refuse(queued: list[Queued], why: Unanswered) -> None:
        for one in queued:
            if one.batch.places[one.number] is None:
                one.batch.end(one.number, why)


class UnpublishedError(Exception):
    """It failed before anything was handed over."""
