"""Reading the answer log as a group: members share the results partitions, join, leave and may be killed.

What is promised, as long as Kafka keeps the group's commits:

- No answer is skipped: each answer is handed over until a member has marked it.
- After a rebalance in which all members were alive, and in which the commits of partitions that were given up arrived,
  no marked answer is handed over again. A rebalance waits :data:`IN_HAND_LIMIT_S` for a caller that is between two
  reads, so that the caller can mark the answers that it holds.
- After a kill only answers that the dead member had not committed are handed over again, to another member. A member
  that was frozen past its session may hand over answers that others have handed over too, until it learns that the
  group removed it.
- An answer that is handed over again has the same partition and request offset. Within one assignment of one member,
  the answers of a partition are in the order of their requests, without repeats, and holes are reported.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Collection, Mapping, Sequence

from headrace.client.arguments import check_instance, seconds
from headrace.client.reading import (
    CHUNK,
    LOOK_BACK,
    Answer,
    LogWatch,
    begins_after_retention,
    read_answer,
    readers_at,
    start_in_log,
)
from headrace.core.answer_log import PartitionReader, Place, committed_place, encode_metadata
from headrace.core.clock import Clock
from headrace.core.fields import Start, parse_start
from headrace.kafka.group_assignment import FetchPosition, GroupAssignment
from headrace.kafka.interface import (
    Consumer,
    KafkaError,
    OffsetOutOfRangeError,
    RebalancedError,
    Record,
    TopicPartition,
)
from headrace.kafka.range_reader import offsets_of
from headrace.process.logs import event

RETRY_S = 0.2
IN_HAND_LIMIT_S = 2.0
"""How long a rebalance waits for a caller that is between two reads."""
RELEASE_LIMIT_S = 2.0
LATE = f"not committed within {RELEASE_LIMIT_S:g} s"


class AssignedPartition(FetchPosition):
    """One partition, from one assignment to the end of it."""

    def __init__(self, name: TopicPartition, assignment: int) -> None:
        super().__init__()
        self.name = name
        self.assignment = assignment
        self.alive = True
        self.reader = PartitionReader()
        self.handed = 0
        self.marked = Place(0)
        self.committed = 0

    @property
    def place(self) -> Place | None:
        """Where another member would go on: behind the last marked answer; also behind repeats, if every answer is
        marked.
        """
        if self.expected is None:
            return None
        return Place(self.expected, self.reader.highest) if self.marked.position >= self.handed else self.marked

    def begin(self, position: int, reader: PartitionReader) -> None:
        self.expected = self.handed = self.committed = position
        self.marked = Place(position, reader.highest)
        self.reader = reader

    def take(self, records: Sequence[Record]) -> list[Answer]:
        """Take the answers of a chunk that begins as expected; they count as handed over."""
        before = self.place
        read = (read_answer(self.reader, record, self.assignment) for record in records)
        answers = [answer for answer in read if answer is not None]
        if answers and before is not None:
            self.marked = before
            self.handed = answers[-1].place.position
        self.expected = records[-1].offset + 1
        return answers

    def mark(self, answer: Answer) -> None:
        """Mark ``answer`` and all answers before it as processed."""
        if answer.place.position > self.marked.position:
            self.marked = answer.place


class ReaderAssignment(GroupAssignment):
    """The rebalance listener. ``consumer`` is the member's; ``looking`` belongs to no group.

    A group's first position is committed before anything is read, so that it survives a member that is killed right
    away. Partition 0 is committed last: if partition 0 has a commit and another partition has none, that partition was
    added later, and is read from its beginning.
    """

    def __init__(
        self,
        consumer: Consumer,
        looking: Consumer,
        topic: str,
        *,
        from_: Start,
        look_back: int = LOOK_BACK,
        clock: Clock,
    ) -> None:
        super().__init__(consumer)
        self._looking = looking
        self._topic = topic
        self._from = from_
        self._look_back = look_back
        self._clock = clock
        self._assignments = 0
        self._one_at_a_time = asyncio.Lock()
        self._one_commit = asyncio.Lock()
        self._committing: asyncio.Task[None] | None = None
        self.owned: dict[TopicPartition, AssignedPartition] = {}
        self.none_in_hand = asyncio.Event()
        self.none_in_hand.set()
        self.failure: BaseException | None = None
        """Why reading a partition could not begin; trying again would not help."""

    async def assigned(self, partitions: Collection[TopicPartition]) -> None:
        if self._stopped:
            return
        self._assignments += 1
        given = [AssignedPartition(name, self._assignments) for name in sorted(partitions)]
        self.owned = {one.name: one for one in given}
        self._consumer.pause(partitions)
        event("answers.assigned", partitions=[one.name.partition for one in given])
        self._beside(self._begin_until_known(given), "begin partitions")

    async def revoked(self, partitions: Collection[TopicPartition]) -> None:
        ended = [self.owned[name] for name in partitions if name in self.owned]
        for partition in ended:
            partition.alive = False
        try:
            async with asyncio.timeout(IN_HAND_LIMIT_S):
                await self.none_in_hand.wait()
        except TimeoutError:
            event("answers.in-hand", level="warning", limit_s=IN_HAND_LIMIT_S)
        await self._released(self.commit(ended), RELEASE_LIMIT_S, LATE)
        for partition in ended:
            self.owned.pop(partition.name, None)
        if self._committing is not None:
            # A commit that is still under way could arrive in the next assignment and overwrite commits of other
            # members.
            self._committing.cancel()

    async def commit(self, partitions: Collection[AssignedPartition]) -> None:
        """Commit the places that have changed. Raises a KafkaError."""
        await self._commit(
            {
                partition: place
                for partition in partitions
                if (place := partition.place) and place.position != partition.committed
            }
        )

    async def stop(self) -> None:
        """Take no more partitions, and commit what is marked."""
        self._cease()
        ended = list(self.owned.values())
        for partition in ended:
            partition.alive = False
        self.none_in_hand.set()
        await self._released(self.commit(ended), RELEASE_LIMIT_S, LATE)
        self.owned.clear()

    async def _commit(self, places: Mapping[AssignedPartition, Place]) -> None:
        # One after the other, or an older place could arrive after a newer one.
        async with self._one_commit:
            owned = {
                partition.name: place
                for partition, place in places.items()
                if self.owned.get(partition.name) is partition
            }
            if not owned:
                return
            offsets = {name: place.position for name, place in owned.items()}
            metadata = {name: encode_metadata(place) for name, place in owned.items()}
            self._committing = asyncio.create_task(self._consumer.commit(offsets, metadata=metadata))
            try:
                await asyncio.wait([self._committing])
            finally:
                self._committing.cancel()
            if self._committing.cancelled():
                raise RebalancedError("Partitions were taken away before their places were committed.")
            self._committing.result()
            for partition in places:
                partition.committed = offsets.get(partition.name, partition.committed)

    async def _begin_until_known(self, partitions: Sequence[AssignedPartition]) -> None:
        while unknown := [partition for partition in partitions if partition.alive and partition.expected is None]:
            try:
                async with self._one_at_a_time:
                    await self._begin(unknown)
            except KafkaError as error:
                # Retention may delete a place while it is looked at.
                if not error.retriable and not isinstance(error, OffsetOutOfRangeError):
                    raise
                event("answers.retry", level="warning", error=str(error))
            if any(partition.alive and partition.expected is None for partition in partitions):
                await self._clock.sleep(RETRY_S)

    async def _begin(self, partitions: Sequence[AssignedPartition]) -> None:
        zero = TopicPartition(self._topic, 0)
        found = await self._consumer.committed({zero, *(one.name for one in partitions)})
        committed = {name: committed_place(one.offset, one.metadata) for name, one in found.items()}
        # Asked after the commits, which may name an answer that was not there before.
        begins = await self._looking.beginning_offsets([partition.name for partition in partitions])
        at = await offsets_of(self._looking, begins, self._from) if zero not in committed else begins
        ends = await self._looking.end_offsets(begins)
        starts: dict[TopicPartition, Place] = {}
        fresh: dict[AssignedPartition, Place] = {}
        for partition in partitions:
            name, kept = partition.name, committed.get(partition.name)
            starts[name] = start_in_log(name, Place(at[name]) if kept is None else kept, begins[name], ends[name])
            if kept is None:
                fresh[partition] = starts[name]
        for partition in await self._not_yet(fresh):
            del starts[partition.name]
        readers = await readers_at(self._looking, starts, begins, look_back=self._look_back)
        begun = [partition for partition in partitions if partition.alive and partition.name in starts]
        for partition in begun:
            partition.begin(starts[partition.name].position, readers[partition.name])
        self._fetch_from({partition.name: starts[partition.name].position for partition in begun})

    async def _not_yet(self, fresh: Mapping[AssignedPartition, Place]) -> Collection[AssignedPartition]:
        """Commit where the group begins. Returns partition 0 if other partitions have to be committed before it."""
        await self._commit({partition: start for partition, start in fresh.items() if partition.name.partition})
        zero = {partition: start for partition, start in fresh.items() if not partition.name.partition}
        if zero and not await self._others_have_begun():
            return zero
        await self._commit(zero)
        return ()

    async def _others_have_begun(self) -> bool:
        others = {TopicPartition(self._topic, number) for number in await self._looking.partitions_of(self._topic)}
        others.discard(TopicPartition(self._topic, 0))
        return others == (await self._consumer.committed(others)).keys()

    def _broken(self, error: BaseException) -> None:
        self.failure = error


class GroupReader:
    """One member. ``consumer`` is of the group, ``looking`` of none. Read, process, :meth:`mark`, :meth:`commit`.

    A group without a place begins at ``from_``; partitions added later are read from their beginning. The metadata of
    the group's commits holds the highest accepted request offset. Without it (commits by other tools, the embedded
    broker) a member looks back over the ``look_back`` answers in front of its position.
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
        self._assignment = ReaderAssignment(
            consumer, looking, topic, from_=parse_start(from_), look_back=look_back, clock=clock
        )
        self._watch = LogWatch(looking, topic, clock)
        self._committed_at = clock.monotonic()

    @property
    def partitions(self) -> frozenset[int]:
        """The results partitions that this member reads now; none until the group has given it some."""
        known = (
            partition
            for partition in self._assignment.owned.values()
            if partition.alive and partition.expected is not None
        )
        return frozenset(one.name.partition for one in known)

    async def start(self) -> None:
        """Join the group; partitions come while :meth:`read` waits. Raises a KafkaError."""
        await self._looking.start()
        await self._consumer.start()
        await self._consumer.subscribe([self._topic], self._assignment)

    async def stop(self) -> None:
        """Commit what is marked and leave the group."""
        try:
            await self._assignment.stop()
        finally:
            try:
                await self._consumer.stop()
            finally:
                await self._looking.stop()

    async def read(self, *, timeout_s: float = 1.0) -> list[Answer]:
        """Wait up to ``timeout_s`` for answers. By reading again the caller says that it has finished with those
        before.

        Raises a KafkaError, AnswerLogError when the log was cut, made anew or deleted, and ArgumentError. The group
        removes a member that does not read for five minutes.
        """
        timeout_s = seconds("timeout_s", timeout_s)
        self._assignment.none_in_hand.set()
        if self._assignment.failure is not None:
            raise self._assignment.failure
        await self._look()
        try:
            chunks = await self._consumer.fetch(max_records=CHUNK, timeout_s=timeout_s)
        except RebalancedError:
            return []
        except OffsetOutOfRangeError as error:
            await self._back_into_the_log(error)
            return []
        answers: list[Answer] = []
        for name, records in chunks.items():
            # Records of an assignment that is over belong to the next owner.
            partition = self._assignment.owned.get(name)
            if partition is not None and partition.alive and partition.expected is not None and records:
                answers += self._take(partition, partition.expected, records)
        if answers:
            self._assignment.none_in_hand.clear()
        return answers

    async def _look(self) -> None:
        owned = self._assignment.owned.values()
        at = {one.name: one.expected for one in owned if one.alive and one.expected is not None}
        try:
            await self._watch.look(at)
        except KafkaError as error:
            if not error.retriable:
                raise
            event("answers.not-looked", level="debug", error=str(error))

    def owns(self, answer: Answer) -> bool:
        """Whether this member still owns the partition of ``answer``. If not, ignore the answer: the next owner gets
        it.
        """
        partition = self._assigned(answer)
        return partition is not None and partition.alive

    def mark(self, answer: Answer) -> None:
        """Mark ``answer`` and all answers before it in its partition as processed. After the partition was revoked this
        does nothing.
        """
        if (partition := self._assigned(answer)) is not None:
            partition.mark(answer)

    async def commit(self, *, every_s: float = 0.0) -> None:
        """Commit the marked places for the group, unless the last commit was less than ``every_s`` seconds ago.

        Partitions that a rebalance took away meanwhile are left to their next owner. Raises any other KafkaError, and
        ArgumentError.
        """
        every_s = seconds("every_s", every_s)
        if every_s and self._clock.monotonic() - self._committed_at < every_s:
            return
        self._committed_at = self._clock.monotonic()
        try:
            await self._assignment.commit(list(self._assignment.owned.values()))
        except RebalancedError:
            return

    def _assigned(self, answer: Answer) -> AssignedPartition | None:
        check_instance("answer", answer, Answer, "an Answer that this reader gave")
        partition = self._assignment.owned.get(TopicPartition(self._topic, answer.partition))
        return partition if partition is not None and partition.assignment == answer.assignment else None

    def _take(self, partition: AssignedPartition, expected: int, records: Sequence[Record]) -> list[Answer]:
        if partition.follows_on(records[0].offset, expected):
            return partition.take(records)
        self._consumer.seek(partition.name, expected)
        return []

    async def _back_into_the_log(self, error: OffsetOutOfRangeError) -> None:
        for name, begin in (await begins_after_retention(self._consumer, error)).items():
            partition = self._assignment.owned.get(name)
            if partition is not None and partition.alive and partition.expected == error.positions[name]:
                partition.expected = begin
                self._consumer.seek(name, begin)
