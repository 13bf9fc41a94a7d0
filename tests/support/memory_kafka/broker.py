"""The twin's broker: partition logs, consumer groups, and the tasks that run them.

Logs have a start, holes and an end, as Kafka's do. The group coordinator speaks Kafka's classic protocol as aiokafka
uses it (eager: every rebalance revokes everything). A member that is silent, because its node is frozen or dead or its
``assigned`` callback runs, is evicted after the session timeout. A rebalance waits for every member to join again, at
most for the rebalance timeout. Then dynamic members that did not come are removed, and static ones keep what they had
until their session ends, as in Kafka.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from bisect import bisect_left
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from headrace.core.clock import Clock
from headrace.kafka.interface import (
    FetchedRecord,
    GroupMember,
    GroupState,
    Outgoing,
    RebalancedError,
    RecordTooLargeError,
    TopicPartition,
    TopicSpec,
    UnknownTopicError,
)

# Kafka's own defaults, reported by describe_topics for topics that do not say otherwise.
DEFAULT_CONFIG = {
    "cleanup.policy": "delete",
    "max.message.bytes": "1048588",
    "message.timestamp.type": "CreateTime",
    "min.insync.replicas": "1",
    "retention.ms": "604800000",
    "unclean.leader.election.enable": "false",
}

RECORD_OVERHEAD_BYTES = 21  # what Kafka's batch format adds to a record's own bytes, at most


class PartitionLog:
    """One partition. ``start`` and ``end`` are offsets; an offset between them may hold no record."""

    def __init__(self, partition: TopicPartition, config: Mapping[str, str]) -> None:
        self.partition = partition
        self._config = config  # the topic's own, so a change of it takes effect at once
        self.start = 0
        self.end = 0
        self.records: list[FetchedRecord] = []
        self._watchers: dict[Callable[[], None], None] = {}  # a dict, because its order does not depend on addresses

    def watch(self, wake: Callable[[], None]) -> None:
        """Call ``wake`` at every change until :meth:`unwatch`."""
        self._watchers[wake] = None

    def unwatch(self, wake: Callable[[], None]) -> None:
        self._watchers.pop(wake, None)

    def append_batch(self, records: Sequence[Outgoing], now_ms: int) -> int:
        """Append one batch and return its first offset. Raises RecordTooLargeError, then nothing was appended."""
        limit = int(self._config["max.message.bytes"])
        for index, record in enumerate(records):
            if record_bytes(record) > limit:
                raise RecordTooLargeError(
                    f"Record {index} for {self.partition.topic}[{self.partition.partition}] takes "
                    f"{record_bytes(record)} bytes; max.message.bytes of the topic allows {limit}. "
                    "Send less, or raise that setting.",
                    index,
                )
        first = self.end
        stamped = self._config["message.timestamp.type"] == "LogAppendTime"
        for record in records:
            timestamp = now_ms if stamped or record.timestamp_ms is None else record.timestamp_ms
            self.records.append(
                FetchedRecord(*self.partition, self.end, timestamp, record.key, record.value, tuple(record.headers))
            )
            self.end += 1
        self.wake()
        return first

    def wake(self) -> None:
        for watcher in tuple(self._watchers):
            watcher()

    def read(self, position: int, limit: int) -> list[FetchedRecord]:
        """At most ``limit`` records at or behind ``position``."""
        at = bisect_left(self.records, position, key=_offset)
        return self.records[at : at + limit]

    def offset_at(self, timestamp_ms: int) -> int | None:
        """The first offset whose timestamp is not before ``timestamp_ms``."""
        return next((record.offset for record in self.records if record.timestamp >= timestamp_ms), None)

    def truncate_before(self, start: int) -> None:
        """Drop what lies before ``start``, as retention does."""
        self.start = max(self.start, start)
        self.end = max(self.end, self.start)
        del self.records[: bisect_left(self.records, self.start, key=_offset)]
        self.wake()

    def drop_tail(self, end: int) -> None:
        """Drop offsets from ``end`` on, as an unclean leader election does."""
        del self.records[bisect_left(self.records, end, key=_offset) :]
        self.end = min(self.end, end)
        self.start = min(self.start, self.end)
        self.wake()

    def remove(self, offset: int) -> None:
        """Take one record out and keep its offset empty, as compaction does."""
        at = bisect_left(self.records, offset, key=_offset)
        if at < len(self.records) and self.records[at].offset == offset:
            del self.records[at]

    def add_gap(self) -> None:
        """Use up an offset without a record, as a transaction's control record does."""
        self.end += 1
        self.wake()

    def clear(self) -> None:
        """Begin anew at offset 0."""
        self.start = self.end = 0
        self.records.clear()
        self.wake()


class TopicLog:
    """A topic: its settings and its partitions."""

    def __init__(self, spec: TopicSpec) -> None:
        self.name = spec.name
        self.replication = spec.replication
        self.config = DEFAULT_CONFIG | spec.config
        self.partitions: list[PartitionLog] = []
        self.grow(spec.partitions)

    def grow(self, total: int) -> None:
        for number in range(len(self.partitions), total):
            self.partitions.append(PartitionLog(TopicPartition(self.name, number), self.config))


def record_bytes(record: Outgoing) -> int:
    """About what a record takes in a batch, in bytes."""
    headers = sum(len(name.encode()) + len(value or b"") + 10 for name, value in record.headers)
    return RECORD_OVERHEAD_BYTES + len(record.key or b"") + len(record.value or b"") + headers


def _offset(record: FetchedRecord) -> int:
    return record.offset


Partitions = frozenset[TopicPartition]


class FencedError(Exception):
    """Another process took over the static id of a member that was joining."""


class Member:
    """One membership, from a first join to leave, eviction or fencing."""

    def __init__(self, member_id: str, instance_id: str | None, topics: tuple[str, ...]) -> None:
        self.member_id = member_id
        self.instance_id = instance_id
        self.topics = topics
        self.must_rejoin = asyncio.Event()
        self.fenced = False
        self.joining: asyncio.Future[tuple[int, Partitions]] | None = None
        self.assignment: Partitions = frozenset()
        self.silent_for: set[str] = set()
        self.eviction: asyncio.Task[None] | None = None

    @property
    def slot(self) -> str:
        return self.instance_id or self.member_id

    @property
    def runs(self) -> bool:
        """Whether its process runs, even if it is heard no more."""
        return not self.silent_for & {"killed", "frozen"}


class MemoryGroup:
    """One consumer group: its members, its generation and what it has committed."""

    def __init__(
        self,
        name: str,
        *,
        clock: Clock,
        partitions_of: Callable[[str], Iterable[TopicPartition]],
        spawn: Callable[..., asyncio.Task[None]],
        session_timeout_s: float,
        rebalance_timeout_s: float,
    ) -> None:
        self.name = name
        self.generation = 0
        self.taken_for_dead = 0
        """Members that the group gave up although their processes ran."""
        self.offsets: dict[TopicPartition, int] = {}
        self.metadata: dict[TopicPartition, str] = {}
        self._clock = clock
        self._partitions_of = partitions_of
        self._spawn = spawn
        self._session_timeout_s = session_timeout_s
        self._rebalance_timeout_s = rebalance_timeout_s
        self._members: dict[str, Member] = {}
        self._deadline: asyncio.Task[None] | None = None

    async def join(self, member: Member) -> tuple[int, Partitions]:
        """Join or join again; returns generation and assignment once the rebalance is complete.

        A static member that comes back within its session takes over its place and causes no rebalance.
        Raises FencedError when another process takes over the static id meanwhile.
        """
        before = self._members.get(member.slot)
        self._members[member.slot] = member
        if before is not None and before is not member:
            self._fence(before)
            if self._deadline is None and before.topics == member.topics:
                member.assignment = before.assignment
                return self.generation, member.assignment
        member.must_rejoin.clear()
        member.joining = asyncio.get_running_loop().create_future()
        joining = member.joining
        if self._deadline is None:
            self.rebalance()
        self._complete_when_all_joined()
        return await joining

    def leave(self, member: Member) -> None:
        """Take the member out, at once."""
        self.heard(member)
        if self._members.get(member.slot) is not member:
            return
        del self._members[member.slot]
        member.must_rejoin.set()
        if self._deadline is None:
            self.rebalance()
        self._complete_when_all_joined()

    def silent(self, member: Member, reason: str) -> None:
        """No heartbeat comes from now on, because of ``reason``."""
        member.silent_for.add(reason)
        if member.eviction is None:
            member.eviction = self._spawn(self._evict_later(member))

    def heard(self, member: Member, reason: str | None = None) -> None:
        """``reason`` for silence (None: every one) is over."""
        member.silent_for.discard(reason) if reason else member.silent_for.clear()
        if not member.silent_for and member.eviction is not None:
            member.eviction.cancel()
            member.eviction = None

    def heartbeat(self, member: Member, generation: int) -> bool:
        """Whether a heartbeat is answered without an error: the generation is the group's, and no rebalance is on."""
        return self._members.get(member.slot) is member and generation == self.generation and self._deadline is None

    def forget(self, topic: str) -> None:
        """Drop what is committed in ``topic``."""
        for partition in [one for one in self.offsets if one.topic == topic]:
            del self.offsets[partition], self.metadata[partition]

    def rebalance(self, topic: str | None = None) -> None:
        """Ask all members to join again (when ``topic`` is given: only if a member reads it)."""
        members = self._members.values()
        if not members or (topic is not None and all(topic not in member.topics for member in members)):
            return
        if self._deadline is None:
            self._deadline = self._spawn(self._complete_at_deadline())
        for member in members:
            if member.joining is None:
                member.must_rejoin.set()

    def commit(
        self,
        member: Member | None,
        generation: int,
        offsets: Mapping[TopicPartition, int],
        metadata: Mapping[TopicPartition, str],
    ) -> None:
        """Store ``offsets``, each with its text of ``metadata`` or with none.

        Raises RebalancedError for another generation or a member that is none.
        """
        if member is None:
            if self._members:
                raise RebalancedError(f"Group {self.name} has members; only they can commit for it.")
        elif self._members.get(member.slot) is not member or generation != self.generation:
            raise RebalancedError(
                f"Commit for group {self.name} from generation {generation}, but it is at {self.generation}; "
                "the partitions may belong to another member now."
            )
        self.offsets.update(offsets)
        self.metadata |= {name: metadata.get(name, "") for name in offsets}

    def describe(self) -> GroupState:
        state = "PreparingRebalance" if self._deadline is not None else "Stable" if self._members else "Empty"
        members = tuple(
            GroupMember(id=one.member_id, client="memory", host="", partitions=tuple(sorted(one.assignment)))
            for one in self._members.values()
        )
        return GroupState(name=self.name, state=state, members=members)

    def _fence(self, member: Member) -> None:
        member.fenced = True
        self.heard(member)
        member.must_rejoin.set()
        if member.joining is not None and not member.joining.done():
            member.joining.set_exception(FencedError())

    async def _evict_later(self, member: Member) -> None:
        await self._clock.sleep(self._session_timeout_s)
        member.eviction = None
        self.taken_for_dead += member.runs
        self.leave(member)

    async def _complete_at_deadline(self) -> None:
        await self._clock.sleep(self._rebalance_timeout_s)
        for slot, member in list(self._members.items()):
            if member.joining is None and member.instance_id is None:
                self.taken_for_dead += member.runs
                del self._members[slot]
        self._complete()

    def _complete_when_all_joined(self) -> None:
        if self._deadline is not None and all(member.joining is not None for member in self._members.values()):
            self._deadline.cancel()
            self._complete()

    def _complete(self) -> None:
        self._deadline = None
        self.generation += 1
        assignments = assign_round_robin(
            {slot: member.topics for slot, member in self._members.items()}, self._partitions_of
        )
        for slot, member in self._members.items():
            member.assignment = assignments[slot]
            if member.joining is not None and not member.joining.done():
                member.joining.set_result((self.generation, member.assignment))
            member.joining = None


def assign_round_robin(
    topics: Mapping[str, Iterable[str]], partitions_of: Callable[[str], Iterable[TopicPartition]]
) -> dict[str, Partitions]:
    """Deal the partitions of each topic, in order, to the members that read it, in order of their ids."""
    dealt: dict[str, list[TopicPartition]] = {slot: [] for slot in topics}
    turn = 0
    for topic in sorted({topic for of_member in topics.values() for topic in of_member}):
        readers = sorted(slot for slot, of_member in topics.items() if topic in of_member)
        for partition in partitions_of(topic):
            dealt[readers[turn % len(readers)]].append(partition)
            turn += 1
    return {slot: frozenset(partitions) for slot, partitions in dealt.items()}


class Faults(Protocol):
    """What a test does to calls: wait, raise a KafkaError, or nothing.

    ``name`` is the operation with ``.before`` or ``.after`` its effect: fetch, produce, commit, committed, metadata,
    offsets, join, admin. An error raised ``after`` is an acknowledgement that got lost.
    """

    async def point(self, member: str, name: str) -> None: ...


class MemoryTimings(msgspec.Struct, frozen=True, kw_only=True):
    """The twin's limits: times in seconds, and how many records it takes in one batch of a produce."""

    session_timeout_s: float = 6.0
    heartbeat_interval_s: float = 0.5
    rebalance_timeout_s: float = 10.0
    request_timeout_s: float = 20.0
    batch_records: int = 1000


class MemoryBroker:
    """Topics, groups and the twin's tasks.

    ``rng`` decides what is left open (when a member hears of a rebalance, what an overtaken fetch delivers).
    ``callback_errors`` collects what rebalance callbacks raised, which aiokafka would only log.
    """

    def __init__(
        self,
        clock: Clock,
        rng: random.Random | None = None,
        faults: Faults | None = None,
        timings: MemoryTimings | None = None,
    ) -> None:
        self.clock = clock
        self.rng = rng or random.Random(0)
        self.faults = faults
        self.timings = timings or MemoryTimings()
        self.topics: dict[str, TopicLog] = {}
        self.callback_errors: list[Exception] = []
        self._groups: dict[str, MemoryGroup] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._member_numbers = itertools.count(1)

    async def close(self) -> None:
        """End every task of the twin and wait for them."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def topic(self, name: str) -> TopicLog:
        if name not in self.topics:
            raise UnknownTopicError(
                f"There is no topic {name}. Create it first, for example by `headrace topics apply`."
            )
        return self.topics[name]

    def find_log(self, partition: TopicPartition) -> PartitionLog | None:
        topic = self.topics.get(partition[0])
        return topic.partitions[partition[1]] if topic and partition[1] < len(topic.partitions) else None

    def log(self, partition: TopicPartition) -> PartitionLog:
        """The log of ``partition``, for a test to look at too. Raises UnknownTopicError."""
        found = self.find_log(partition)
        if found is None:
            self.topic(partition[0])
            raise UnknownTopicError(f"Topic {partition[0]} has no partition {partition[1]}.")
        return found

    def partition_numbers(self, topic: str) -> frozenset[int]:
        return frozenset(range(len(self.topics[topic].partitions))) if topic in self.topics else frozenset()

    def group(self, name: str) -> MemoryGroup:
        if name not in self._groups:
            self._groups[name] = MemoryGroup(
                name,
                clock=self.clock,
                partitions_of=lambda topic: (TopicPartition(topic, n) for n in sorted(self.partition_numbers(topic))),
                spawn=self.spawn,
                session_timeout_s=self.timings.session_timeout_s,
                rebalance_timeout_s=self.timings.rebalance_timeout_s,
            )
        return self._groups[name]

    def committed(self, group: str) -> dict[TopicPartition, int]:
        return dict(self._groups[group].offsets) if group in self._groups else {}

    def describe_group(self, name: str) -> GroupState:
        return self._groups[name].describe() if name in self._groups else GroupState(name=name, state="Dead")

    def rebalance_readers(self, topic: str) -> None:
        for group in self._groups.values():
            group.rebalance(topic)

    def next_member_id(self, node: str) -> str:
        return f"{node}-{next(self._member_numbers):06}"

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # What a test does to the logs.

    def create_topic(self, spec: TopicSpec) -> None:
        self.topics[spec.name] = TopicLog(spec)
        self.rebalance_readers(spec.name)

    def delete_topic(self, name: str) -> None:
        """Delete the topic and what groups have committed in it, as Kafka does."""
        for partition_log in self.topic(name).partitions:
            partition_log.wake()
        del self.topics[name]
        for group in self._groups.values():
            group.forget(name)
        self.rebalance_readers(name)

    def recreate(self, topic: str) -> None:
        """Empty the topic and begin it at offset 0, as deleting and creating it does; commits stay."""
        for partition_log in self.topic(topic).partitions:
            partition_log.clear()
