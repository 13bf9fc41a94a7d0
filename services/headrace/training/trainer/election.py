"""Election: the member of a group that owns the one partition of the models topic leads.

The group moves the partition when its owner leaves or falls silent. A commit in the group is refused to whoever is no
member of its present generation, so a commit that succeeds proves that nobody else leads; the proof is renewed every
second and holds for as long as the group would wait before it gives the partition to another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from headrace.core.clock import Clock
from headrace.kafka.errors import KafkaError, RebalancedError
from headrace.kafka.interface import Cluster, TopicPartition
from headrace.logs import event

BEAT_S = 1.0


class NotLeadingError(Exception):
    """Another trainer leads, or may lead by now."""


class Election:
    """One candidate. ``session_s`` and ``rebalance_s`` are the group's own times, in seconds."""

    def __init__(
        self, cluster: Cluster, *, topic: str, group: str, session_s: float, rebalance_s: float, clock: Clock
    ) -> None:
        self._consumer = cluster.consumer(group=group)
        self._seat = TopicPartition(topic, 0)
        self._session_s = session_s
        self._rebalance_s = rebalance_s
        self._clock = clock
        self._elected = False
        self._held_until = 0.0
        self._changed = asyncio.Event()
        self.joined = False
        """Whether the group has taken this candidate in."""

    @property
    def leads(self) -> bool:
        return self._elected and self._clock.monotonic() < self._held_until

    async def start(self) -> None:
        """Join. Raises UnknownTopicError when there is no models topic."""
        await self._consumer.start()
        await self._consumer.subscribe([self._seat.topic], self)

    async def stop(self) -> None:
        await self._consumer.stop()

    async def run(self) -> None:
        """Keep the membership, and the proof that this candidate leads. Raises what can't be mended here."""
        while True:
            try:
                # A member has to poll, or the group takes it for dead; nothing is read here.
                await self._consumer.fetch(max_records=1, timeout_s=BEAT_S)
                if self._elected:
                    await self._prove()
            except KafkaError as error:
                if not error.retriable:
                    raise
                event("trainer.election_waits", level="warning", error=str(error))
                await self._clock.sleep(BEAT_S)

    async def won(self) -> None:
        """Return once this candidate leads."""
        while not self.leads:
            self._changed.clear()
            await self._changed.wait()

    async def lost(self) -> None:
        """Return once this candidate leads no more: the partition is another's, or no proof came in time."""
        while self.leads:
            self._changed.clear()
            try:
                async with asyncio.timeout(self._held_until - self._clock.monotonic()):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def confirm(self) -> None:
        """Return with fresh proof, for what only the leader may write. Raises NotLeadingError."""
        while self.leads:
            try:
                if await self._prove():
                    return
            except KafkaError as error:
                if not error.retriable:
                    raise
            await self._clock.sleep(BEAT_S)
        raise NotLeadingError("Another trainer leads, so this one writes nothing.")

    async def assigned(self, partitions: Collection[TopicPartition]) -> None:
        self.joined = True
        self._elected = self._seat in partitions
        self._changed.set()
        if not self._elected:
            event("trainer.stands_by")

    async def revoked(self, partitions: Collection[TopicPartition]) -> None:
        # The group waits for this member to join again before it can give the partition to another.
        if self.leads and self._seat in partitions:
            self._held_until = self._clock.monotonic() + self._rebalance_s

    async def _prove(self) -> bool:
        """Whether the group took a commit just now. While it rebalances it does not; assigned() tells the end."""
        asked = self._clock.monotonic()
        try:
            await self._consumer.commit({self._seat: 0})
        except RebalancedError:
            return False
        self._held_until = asked + self._session_s
        self._changed.set()
        return True
