"""The results partitions that a member of a group has: given, begun where the group stands, given up.

The rebalance callbacks do next to nothing: heartbeats stop while the assigned one waits, and the whole group waits for
the revoked one. So a partition is begun outside of them, and giving it up waits for the caller a bounded time.

Reading the answer log by a group: several members share the results partitions, come, go and are killed.

What is promised, as long as Kafka keeps the group's commits:

- No answer is skipped: each is handed to a member until one of them has marked it.
- Behind a rebalance in which everybody was alive, and the commits of those who gave partitions up arrived, no answer
  that was marked is handed over again. A rebalance waits :data:`IN_HAND_LIMIT_S` for a caller that is between two
  reads, so that it can mark what it holds.
- After a kill only what the dead member had not committed is handed over again, to another member. A member that was
  frozen past its session may hand over what others have had as well, until it hears that it was put out.
- What is handed over again has the same partition and request offset. For one member and one assignment, the answers of
  a partition are in the order of their requests, without repeats, and with holes said.
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


class Share:
    """One partition from one assignment to the end of it. ``expected`` is None until its place is known."""

    def __init__(self, name: TopicPartition, assignment: int) -> None:
        self.name = name
        self.assignment = assignment
        self.alive = True
        self.expected: int | None = None
        self.reader = PartitionReader()
        self.gap: tuple[int, int] | None = None
        self.handed = 0
        self.marked = Place(0)
        self.committed = 0

    @property
    def place(self) -> Place | None:
        """Where another member would go on: behind what is marked, and behind repeats when all of it is."""
        if self.expected is None:
            return None
        return Place(self.expected, self.reader.highest) if self.marked.position >= self.handed else self.marked

    def begin(self, position: int, reader: PartitionReader) -> None:
        self.expected = self.handed = self.committed = position
        self.marked = Place(position, reader.highest)
        self.reader = reader

    def take(self, records: Sequence[Record]) -> list[Answer]:
        """The answers of a chunk that begins as expected, handed over from now on."""
        before = self.place
        read = (read_answer(self.reader, record, self.assignment) for record in records)
        answers = [answer for answer in read if answer is not None]
        if answers and before is not None:
            self.marked = before
            self.handed = answers[-1].place.position
        self.expected = records[-1].offset + 1
        return answers

    def mark(self, answer: Answer) -> None:
        """``answer`` and all before it are processed."""
        if answer.place.position > self.marked.position:
            self.marked = answer.place


class Shares:
    """Fulfils the rebalance listener. ``consumer`` is the member's; ``looking`` belongs to no group.

    A group's first start is committed before anything is read, so that a member that is killed right away leaves the
    place behind. Partition 0 is committed last: a partition without a commit beside a committed partition 0 was added
    later, and is read from its beginning.
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
        self._consumer = consumer
        self._looking = looking
        self._topic = topic
        self._from = from_
        self._look_back = look_back
        self._clock = clock
        self._assignments = 0
        self._stopped = False
        self._beginning: set[asyncio.Task[None]] = set()
        self._one_at_a_time = asyncio.Lock()
        self._one_commit = asyncio.Lock()
        self._committing: asyncio.Task[None] | None = None
        self.owned: dict[TopicPartition, Share] = {}
        self.none_in_hand = asyncio.Event()
        self.none_in_hand.set()
        self.failure: BaseException | None = None
        """Why a partition could not be begun; trying again does not mend it."""

    async def assigned(self, partitions: Collection[TopicPartition]) -> None:
        if self._stopped:
            return
        self._assignments += 1
        shares = [Share(name, self._assignments) for name in sorted(partitions)]
        self.owned = {share.name: share for share in shares}
        self._consumer.pause(partitions)
        event("answers.assigned", partitions=[share.name.partition for share in shares])
        task = asyncio.create_task(self._begin_until_known(shares), name="begin shares")
        self._beginning.add(task)
        task.add_done_callback(self._begun)

    async def revoked(self, partitions: Collection[TopicPartition]) -> None:
        ended = [self.owned[name] for name in partitions if name in self.owned]
        for share in ended:
            share.alive = False
        try:
            async with asyncio.timeout(IN_HAND_LIMIT_S):
                await self.none_in_hand.wait()
        except TimeoutError:
            event("answers.in-hand", level="warning", limit_s=IN_HAND_LIMIT_S)
        await self._release(ended)
        for share in ended:
            self.owned.pop(share.name, None)
        if self._committing is not None:
            # What is under way still could be sent for the next assignment, and take back what others commit meanwhile.
            self._committing.cancel()

    async def commit(self, shares: Collection[Share]) -> None:
        """Commit what moved. Raises a KafkaError."""
        await self._commit(
            {share: place for share in shares if (place := share.place) and place.position != share.committed}
        )

    async def stop(self) -> None:
        """Begin nothing more, and commit what is marked."""
        self._stopped = True
        for task in self._beginning:
            task.cancel()
        ended = list(self.owned.values())
        for share in ended:
            share.alive = False
        self.none_in_hand.set()
        await self._release(ended)
        self.owned.clear()

    async def _release(self, shares: Collection[Share]) -> None:
        try:
            async with asyncio.timeout(RELEASE_LIMIT_S):
                await self.commit(shares)
        except (KafkaError, TimeoutError) as error:
            event("release.failed", level="warning", error=str(error) or f"not committed within {RELEASE_LIMIT_S:g} s")

    async def _commit(self, places: Mapping[Share, Place]) -> None:
        # One behind the other, or an older place could arrive after a newer one.
        async with self._one_commit:
            owned = {share.name: place for share, place in places.items() if self.owned.get(share.name) is share}
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
            for share in places:
                share.committed = offsets.get(share.name, share.committed)

    async def _begin_until_known(self, shares: Sequence[Share]) -> None:
        while unknown := [share for share in shares if share.alive and share.expected is None]:
            try:
                async with self._one_at_a_time:
                    await self._begin(unknown)
            except KafkaError as error:
                # Retention may take a place away while it is looked at.
                if not error.retriable and not isinstance(error, OffsetOutOfRangeError):
                    raise
                event("answers.retry", level="warning", error=str(error))
            if any(share.alive and share.expected is None for share in shares):
                await self._clock.sleep(RETRY_S)

    async def _begin(self, shares: Sequence[Share]) -> None:
        zero = TopicPartition(self._topic, 0)
        committed = {name: await self._committed(name) for name in {zero, *(share.name for share in shares)}}
        # After the commits, which may name an answer that was not there before.
        begins = await self._looking.beginning_offsets([share.name for share in shares])
        at = await offsets_of(self._looking, begins, self._from) if committed[zero] is None else begins
        ends = await self._looking.end_offsets(begins)
        starts: dict[TopicPartition, Place] = {}
        fresh: dict[Share, Place] = {}
        for share in shares:
            name, kept = share.name, committed[share.name]
            starts[name] = start_in_log(name, Place(at[name]) if kept is None else kept, begins[name], ends[name])
            if kept is None:
                fresh[share] = starts[name]
        for share in await self._not_yet(fresh):
            del starts[share.name]
        readers = await readers_at(self._looking, starts, begins, look_back=self._look_back)
        begun = [share for share in shares if share.alive and share.name in starts]
        for share in begun:
            share.begin(starts[share.name].position, readers[share.name])
            self._consumer.seek(share.name, starts[share.name].position)
        self._consumer.resume([share.name for share in begun])

    async def _committed(self, name: TopicPartition) -> Place | None:
        found = await self._consumer.committed_with_metadata(name)
        return None if found is None else committed_place(found.offset, found.metadata)

    async def _not_yet(self, fresh: Mapping[Share, Place]) -> Collection[Share]:
        """Commit where the group begins. Returns the share of partition 0 while others have to be committed first."""
        await self._commit({share: start for share, start in fresh.items() if share.name.partition})
        zero = {share: start for share, start in fresh.items() if not share.name.partition}
        if zero and not await self._others_have_begun():
            return zero
        await self._commit(zero)
        return ()

    async def _others_have_begun(self) -> bool:
        for number in await self._looking.partitions_of(self._topic):
            if number and await self._consumer.committed(TopicPartition(self._topic, number)) is None:
                return False
        return True

    def _begun(self, task: asyncio.Task[None]) -> None:
        self._beginning.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failure = error


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
        self._watch = LogWatch(looking, topic, clock)
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

        Raises a KafkaError, AnswerLogError when the log was cut, made anew or deleted, and ArgumentError. Who does not
        read for five minutes is put out.
        """
        timeout_s = seconds("timeout_s", timeout_s)
        self._shares.none_in_hand.set()
        if self._shares.failure is not None:
            raise self._shares.failure
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
            # What was fetched for an assignment that is over belongs to somebody else.
            share = self._shares.owned.get(name)
            if share is not None and share.alive and share.expected is not None and records:
                answers += self._take(share, share.expected, records)
        if answers:
            self._shares.none_in_hand.clear()
        return answers

    async def _look(self) -> None:
        owned = self._shares.owned.values()
        at = {share.name: share.expected for share in owned if share.alive and share.expected is not None}
        try:
            await self._watch.look(at)
        except KafkaError as error:
            if not error.retriable:
                raise
            event("answers.not-looked", level="debug", error=str(error))

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
