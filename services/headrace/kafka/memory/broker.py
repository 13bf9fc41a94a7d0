"""The twin's one broker, and the simulated processes that reach it.

:class:`MemoryBroker` holds topics and groups. A :class:`MemoryProcess` can be frozen (SIGSTOP), thawed (SIGCONT) and
killed (SIGKILL); the twin's clients ask their process before each step, and act on its broker.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Coroutine
from typing import Any, Protocol

import msgspec

from headrace.core.clock import Clock
from headrace.kafka.interface import TopicPartition, TopicSpec, UnknownTopicError
from headrace.kafka.memory.group import MemoryGroup
from headrace.kafka.memory.log import PartitionLog, TopicLog


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
        self.rng = rng or random.Random(0)  # noqa: S311 - a simulation has to be repeatable
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
        for partition_log in self.topic(name).partitions:
            partition_log.wake()
        del self.topics[name]
        self.rebalance_readers(name)

    def recreate(self, topic: str) -> None:
        """Empty the topic and begin it at offset 0, as deleting and creating it does; commits stay."""
        for partition_log in self.topic(topic).partitions:
            partition_log.clear()

    def truncate(self, partition: TopicPartition, start: int) -> None:
        """Drop what lies before ``start``, as retention does."""
        self.log(partition).truncate_before(start)

    def drop_tail(self, partition: TopicPartition, end: int) -> None:
        """Drop offsets from ``end`` on, as an unclean leader election does."""
        self.log(partition).drop_tail(end)

    def add_gap(self, partition: TopicPartition) -> None:
        """Use up the next offset without a record, as a transaction's control record does."""
        self.log(partition).add_gap()

    def remove(self, partition: TopicPartition, offset: int) -> None:
        """Take one record out and keep its offset empty, as compaction does."""
        self.log(partition).remove(offset)


class GroupMember(Protocol):
    """What a process does to each of its consumers."""

    def fall_silent(self, reason: str) -> None: ...
    def speak_again(self, reason: str) -> None: ...
    def die(self) -> None: ...


class MemoryProcess:
    """One simulated process: its clients reach ``broker`` through it."""

    def __init__(self, broker: MemoryBroker, name: str) -> None:
        self.broker = broker
        self.name = name
        self.dead = False
        self._running = asyncio.Event()
        self._running.set()
        self._coordinator = asyncio.Event()
        self._coordinator.set()
        self._members: list[GroupMember] = []

    async def point(self, name: str) -> None:
        """Where a call can be held up: by the faults given, by a freeze, or for ever by death."""
        await self.gate()
        if self.broker.faults is None:
            await asyncio.sleep(0)  # a real call always lets others run
        else:
            await self.broker.faults.point(self.name, name)
        await self.gate()

    async def gate(self) -> None:
        """Pass while the process runs. Raises CancelledError once it was killed."""
        await self._running.wait()
        if self.dead:
            raise asyncio.CancelledError(f"{self.name} was killed")

    async def coordinator(self) -> None:
        """Pass while the group's coordinator can be reached."""
        await self._coordinator.wait()
        await self.gate()

    def cut_coordinator(self) -> None:
        """The coordinator can't be reached any more, and all brokers can."""
        self._coordinator.clear()
        for member in self._members:
            member.fall_silent("cut off")

    def restore_coordinator(self) -> None:
        self._coordinator.set()
        for member in self._members:
            member.speak_again("cut off")

    @property
    def reaches_coordinator(self) -> bool:
        return self._coordinator.is_set()

    def freeze(self) -> None:
        self._running.clear()
        for member in self._members:
            member.fall_silent("frozen")

    def thaw(self) -> None:
        self._running.set()
        for member in self._members:
            member.speak_again("frozen")

    def kill(self) -> None:
        self.dead = True
        for member in self._members:
            member.die()
        self._running.set()
        self._coordinator.set()
