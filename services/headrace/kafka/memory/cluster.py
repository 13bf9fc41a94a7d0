"""A Kafka cluster inside the process, for tests: partitions, groups, rebalances, offsets and headers on a given clock.

It keeps Kafka's rules where a service could trip over them: nothing fences a zombie's produce, a rebalance revokes
everything, a silent member is evicted, offsets can be cut off, missing or begin anew. A test drives it by ``faults``
(see :class:`headrace.kafka.memory.node.Faults`), by ``rng`` and by the methods at the end of :class:`MemoryCluster`.
It uses asyncio and the clock alone, so that it runs under an event loop whose time jumps.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Coroutine
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import msgspec

from headrace.core.clock import Clock
from headrace.kafka.interface import TopicPartition, TopicSpec, UnknownTopicError
from headrace.kafka.memory.admin import MemoryAdmin
from headrace.kafka.memory.consumer import MemoryConsumer
from headrace.kafka.memory.group import MemoryGroup
from headrace.kafka.memory.log import PartitionLog, TopicLog
from headrace.kafka.memory.node import Faults, MemoryNode
from headrace.kafka.memory.producer import MemoryProducer


class MemoryTimings(msgspec.Struct, frozen=True, kw_only=True):
    """The twin's limits: times in seconds, and how many records it takes in one batch of a produce."""

    session_timeout_s: float = 6.0
    heartbeat_interval_s: float = 0.5
    rebalance_timeout_s: float = 10.0
    request_timeout_s: float = 20.0
    batch_records: int = 1000


class MemoryCluster:
    """The twin. Made inside a running event loop; :meth:`close` ends its tasks.

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
        self._nodes: dict[str, MemoryNode] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._member_numbers = itertools.count(1)

    @property
    def bootstrap(self) -> str:
        return "memory"

    async def why_away(self) -> str | None:
        """Never: a fault is one of a call."""
        return None

    def calmed(self) -> AbstractContextManager[None]:
        return nullcontext()

    def node(self, name: str) -> MemoryNode:
        """The process ``name``; a new one when there is none, or when it was killed."""
        node = self._nodes.get(name)
        if node is None or node.dead:
            node = self._nodes[name] = MemoryNode(self, name)
        return node

    def consumer(
        self, *, group: str | None = None, member: str | None = None, read_committed: bool = False
    ) -> MemoryConsumer:
        return self.node("local").consumer(group=group, member=member, read_committed=read_committed)

    def producer(self) -> MemoryProducer:
        return self.node("local").producer()

    def admin(self) -> MemoryAdmin:
        return self.node("local").admin()

    async def close(self) -> None:
        """End every task of the twin and wait for them."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # What the twin's own parts ask of it.

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

    # What a test does to the cluster.

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

    def freeze(self, name: str) -> None:
        """SIGSTOP: the node's calls wait and its heartbeats stop; what is under way ends after the thaw."""
        self.node(name).freeze()

    def thaw(self, name: str) -> None:
        """SIGCONT."""
        self.node(name).thaw()

    def cut_coordinator(self, name: str) -> None:
        """Let the node lose the group's coordinator alone: it fetches and produces as before."""
        self.node(name).cut_coordinator()

    def restore_coordinator(self, name: str) -> None:
        """The node reaches the coordinator again."""
        self.node(name).restore_coordinator()

    def kill(self, name: str) -> None:
        """SIGKILL: heartbeats stop, and every call of the node, waiting or new, raises CancelledError."""
        self.node(name).kill()
