"""Election: one process of a group leads. It is the one that owns the only partition of a topic.

It leads while its lease lasts (``core/lease.py``). The group moves the partition when its owner leaves or falls silent,
but a coordinator that can't be reached can't tell the owner. An accepted commit proves nothing: the group takes commits
of the old generation all through a rebalance.
"""

from __future__ import annotations

import math
from collections.abc import Collection

from headrace.core.clock import Clock
from headrace.kafka.interface import Cluster, KafkaError, TopicPartition
from headrace.kafka.retry import SAID_AFTER_S
from headrace.process.logs import Overdue, event

POLL_S = 1.0
LOOK_S = 0.1


class NotLeadingError(Exception):
    """Another one may lead by now."""


class Election:
    """One candidate for partition 0 of ``topic``. ``who`` names the kind of candidate in events, such as "trainer"."""

    def __init__(self, cluster: Cluster, *, topic: str, group: str, who: str, clock: Clock) -> None:
        self._consumer = cluster.consumer(group=group)
        self._seat = TopicPartition(topic, 0)
        self._who = who
        self._clock = clock
        self._elected = False
        self._revoked_until = math.inf
        """The end of the lease that this candidate had when a rebalance began. The next lease is for the next
        assignment.
        """

    @property
    def joined(self) -> bool:
        """Whether this candidate is a member of the group, as far as this process knows."""
        return self._consumer.lease_left_s() > 0

    @property
    def leads(self) -> bool:
        return self._left_s() > 0

    async def start(self) -> None:
        """Join. Raises UnknownTopicError when there is no such topic."""
        await self._consumer.start()
        await self._consumer.subscribe([self._seat.topic], self)

    async def stop(self) -> None:
        await self._consumer.stop()

    async def run(self) -> None:
        """Keep the membership. Raises what can't be mended here."""
        waiting = Overdue(SAID_AFTER_S)
        since_s = self._clock.monotonic()
        while True:
            try:
                # A member has to poll, or the group takes it for dead. No record is read here.
                await self._consumer.fetch(max_records=1, timeout_s=POLL_S)
            except KafkaError as error:
                if not error.retriable:
                    raise
                if waiting.due(self._clock.monotonic() - since_s):
                    event(f"{self._who}.election_waits", level="warning", error=str(error))
                await self._clock.sleep(POLL_S)
            else:
                waiting, since_s = Overdue(SAID_AFTER_S), self._clock.monotonic()

    async def won(self) -> None:
        """Return once this candidate leads."""
        while not self.leads:
            await self._clock.sleep(LOOK_S)

    async def lost(self) -> None:
        """Return once this candidate leads no more: another one has the partition, or the group was not heard in
        time.
        """
        while (left := self._left_s()) > 0:
            await self._clock.sleep(min(left, LOOK_S))

    def confirm(self) -> None:
        """Call this immediately before handing over a record that only the leader may write. Raises NotLeadingError."""
        if not self.leads:
            raise NotLeadingError(f"Another {self._who} leads, or may lead by now, so this one writes nothing.")

    async def assigned(self, partitions: Collection[TopicPartition]) -> None:
        self._elected = self._seat in partitions
        self._revoked_until = math.inf
        if not self._elected:
            why = f"another {self._who} of this group leads; this one takes over when it ends"
            event(f"{self._who}.stands_by", why=why)

    async def revoked(self, partitions: Collection[TopicPartition]) -> None:
        del partitions
        # The group waits for this member to join again, but not for longer than the lease lasts.
        self._revoked_until = self._clock.monotonic() + self._consumer.lease_left_s()

    def _left_s(self) -> float:
        """For how many seconds nobody else can lead; 0 when this candidate does not lead."""
        if not self._elected:
            return 0.0
        return max(0.0, min(self._consumer.lease_left_s(), self._revoked_until - self._clock.monotonic()))
