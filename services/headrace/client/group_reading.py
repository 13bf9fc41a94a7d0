"""Reading the answer log by a group: several members share the results partitions, come, go and are killed.

What is promised, as long as Kafka keeps the group's commits:

- No answer is skipped: each is handed to a member until one of them has marked it.
- Behind a rebalance in which everybody was alive, and the commits of those who gave partitions up arrived, no answer
  that was marked is handed over again. A rebalance waits :data:`~headrace.client.shares.IN_HAND_LIMIT_S` for a caller
  that is between two reads, so that it can mark what it holds.
- After a kill only what the dead member had not committed is handed over again, to another member. A member that was
  frozen past its session may hand over what others have had as well, until it hears that it was put out.
- What is handed over again has the same partition and request offset. For one member and one assignment, the answers of
  a partition are in the order of their requests, without repeats, and with holes said.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from headrace.client.arguments import check_instance, seconds
from headrace.client.reading import CHUNK, LOOK_BACK, Answer, begins_after_retention
from headrace.client.shares import Share, Shares
from headrace.core.clock import Clock
from headrace.core.starts import parse_start
from headrace.kafka.errors import OffsetOutOfRangeError, RebalancedError
from headrace.kafka.interface import Consumer, Record, TopicPartition


class GroupReader:
    """One member. ``consumer`` is of the group, ``looking`` of none. Read, process, :meth:`mark`, :meth:`commit`.

    Where the group has no place yet it begins at ``from_``; partitions added later are read from their beginning. The
    highest request offset accepted stands in the metadata of the group's commits. Where it does not (commits by other
    tools, the embedded broker) a member looks back over the ``look_back`` answers in front of its position.
    """

    def __init__(
        self,
        consumer: Consumer,
        looking: Consumer,
        topic: str,
        *,
        from_: str | dt.datetime = "latest",
        look_back: int = LOOK_BACK,
        clock: Clock,
    ) -> None:
        self._consumer = consumer
        self._looking = looking
        self._topic = topic
        self._clock = clock
        self._shares = Shares(consumer, looking, topic, from_=parse_start(from_), look_back=look_back, clock=clock)
        self._committed_at = clock.monotonic()

    @property
    def partitions(self) -> frozenset[int]:
        """The results partitions that this member reads now; none until the group has given it some."""
        known = (share for share in self._shares.owned.values() if share.alive and share.expected is not None)
        return frozenset(share.name.partition for share in known)

    async def start(self) -> None:
        """Join the group; partitions come while :meth:`read` waits. Raises a KafkaError."""
        await self._looking.start()
        await self._consumer.start()
        await self._consumer.subscribe([self._topic], self._shares)

    async def stop(self) -> None:
        """Commit what is marked and leave the group."""
        try:
            await self._shares.stop()
        finally:
            try:
                await self._consumer.stop()
            finally:
                await self._looking.stop()

    async def read(self, *, timeout_s: float = 1.0) -> list[Answer]:
        """Wait up to ``timeout_s`` for answers. Whoever reads again holds nothing that a rebalance need wait for.

        Raises a KafkaError, AnswerLogError when the log was cut, and ArgumentError. Who does not read for five minutes
        is put out.
        """
        timeout_s = seconds("timeout_s", timeout_s)
        self._shares.none_in_hand.set()
        if self._shares.failure is not None:
            raise self._shares.failure
        try:
            chunks = await self._consumer.fetch(max_records=CHUNK, timeout_s=timeout_s)
        except RebalancedError:
            return []
        except OffsetOutOfRangeError as error:
            await self._back_into_the_log(error)
            return []
        answers: list[Answer] = []
        for name, records in chunks.items():
            # What was fetched for an assignment that is over belongs to somebody else.
            share = self._shares.owned.get(name)
            if share is not None and share.alive and share.expected is not None and records:
                answers += self._take(share, share.expected, records)
        if answers:
            self._shares.none_in_hand.clear()
        return answers

    def owns(self, answer: Answer) -> bool:
        """Whether the partition of ``answer`` is still this member's. If not, leave it: its next owner gets it."""
        share = self._share_of(answer)
        return share is not None and share.alive

    def mark(self, answer: Answer) -> None:
        """Say that ``answer`` and all before it in its partition are processed. Too late, it changes nothing."""
        if (share := self._share_of(answer)) is not None:
            share.mark(answer)

    async def commit(self, *, every_s: float = 0.0) -> None:
        """Keep what is marked as the group's place, unless that was done less than ``every_s`` ago.

        What a rebalance took away meanwhile is left to its next owner. Raises any other KafkaError, and ArgumentError.
        """
        every_s = seconds("every_s", every_s)
        if every_s and self._clock.monotonic() - self._committed_at < every_s:
            return
        self._committed_at = self._clock.monotonic()
        try:
            await self._shares.commit(list(self._shares.owned.values()))
        except RebalancedError:
            return

    def _share_of(self, answer: Answer) -> Share | None:
        check_instance("answer", answer, Answer, "an Answer that this reader gave")
        share = self._shares.owned.get(TopicPartition(self._topic, answer.partition))
        return share if share is not None and share.assignment == answer.assignment else None

    def _take(self, share: Share, expected: int, records: Sequence[Record]) -> list[Answer]:
        first = records[0].offset
        if first < expected or (first > expected and share.gap != (expected, first)):
            # A fetch that a rebalance overtook; only a gap seen twice is one of the log.
            share.gap = (expected, first)
            self._consumer.seek(share.name, expected)
            return []
        share.gap = None
        return share.take(records)

    async def _back_into_the_log(self, error: OffsetOutOfRangeError) -> None:
        for name, begin in (await begins_after_retention(self._consumer, error)).items():
            share = self._shares.owned.get(name)
            if share is not None and share.alive and share.expected == error.positions[name]:
                share.expected = begin
                self._consumer.seek(name, begin)
