"""Which results partitions are this gateway's, as the group divides them: where it publishes texts without a key.

The group says no more than that. Nothing is read by its consumer and nothing is committed, so a membership that is out
of date costs some reading twice, and loses nothing.
"""

from __future__ import annotations

from collections.abc import Collection

from headrace.core.clock import Clock
from headrace.kafka.interface import Cluster, KafkaError, TopicPartition
from headrace.process.logs import Overdue, event

POLL_S = 1.0
SAID_AFTER_S = 10.0


class Ownership:
    """One member of ``group``, which divides the partitions of ``topic``."""

    def __init__(self, cluster: Cluster, topic: str, group: str, clock: Clock) -> None:
        self._consumer = cluster.consumer(group=group)
        self._topic = topic
        self._clock = clock
        self.partitions: frozenset[int] = frozenset()

    async def start(self) -> None:
        """Join the group. Raises a KafkaError."""
        await self._consumer.start()
        await self._consumer.subscribe([self._topic], self)

    async def stop(self) -> None:
        await self._consumer.stop()

    async def run(self) -> None:
        """Keep the membership until cancelled. Raises KafkaErrors that trying again does not mend."""
        waiting, since_s = Overdue(SAID_AFTER_S), self._clock.monotonic()
        while True:
            try:
                # A member has to poll, or the group takes it for dead; its partitions are never sought, so none come.
                await self._consumer.fetch(max_records=1, timeout_s=POLL_S)
            except KafkaError as error:
                if not error.retriable:
                    raise
                if waiting.due(self._clock.monotonic() - since_s):
                    event("gateway.group_waits", level="warning", error=str(error))
                await self._clock.sleep(POLL_S)
            else:
                waiting, since_s = Overdue(SAID_AFTER_S), self._clock.monotonic()

    async def assigned(self, partitions: Collection[TopicPartition]) -> None:
        self.partitions = frozenset(one.partition for one in partitions)
        event("gateway.owns", partitions=sorted(self.partitions))

    async def revoked(self, partitions: Collection[TopicPartition]) -> None:
        """Go on with those until the group has divided anew: they are read whoever owns them."""
