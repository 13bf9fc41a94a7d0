"""A Kafka cluster inside the process, for tests: partitions, groups, rebalances, offsets and headers on a given clock.

It keeps Kafka's rules where a service could trip over them: nothing fences a zombie's produce, a rebalance revokes
everything, a silent member is evicted, and offsets can be truncated, missing or begin anew. A test drives the cluster
by ``faults`` (see :class:`Faults`), by ``rng``, by the methods of its logs and by those
of its nodes. It uses asyncio and the clock alone, so it runs under an event loop whose time jumps.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

from headrace.core.clock import Clock
from headrace.kafka.aio.producer import partition_of_key
from headrace.kafka.interface import (
    Appended,
    GroupState,
    KafkaError,
    OffsetOutOfRangeError,
    Outgoing,
    Permitted,
    ProducerDeadError,
    TopicExistsError,
    TopicPartition,
    TopicSpec,
    TopicState,
)
from tests.support.memory_kafka.broker import Faults, MemoryBroker, MemoryTimings
from tests.support.memory_kafka.consumer import MemoryConsumer


class MemoryNode:
    """One simulated process, fulfilling :class:`headrace.kafka.interface.Cluster`: its clients reach ``broker``.

    It can be frozen (SIGSTOP), thawed (SIGCONT) and killed (SIGKILL): its clients ask it before each step.
    """

    def __init__(self, broker: MemoryBroker, name: str) -> None:
        self.broker = broker
        self.name = name
        self.dead = False
        self._running = asyncio.Event()
        self._running.set()
        self._coordinator = asyncio.Event()
        self._coordinator.set()
        self._members: list[MemoryConsumer] = []

    @property
    def bootstrap(self) -> str:
        return "memory"

    @property
    def batch_bytes(self) -> int:
        return 512 * 1024

    async def why_away(self) -> str | None:
        """Never: a fault is one of a call."""
        return None

    def calmed(self) -> AbstractContextManager[None]:
        return nullcontext()

    def consumer(
        self,
        *,
        group: str | None = None,
        member: str | None = None,
        read_committed: bool = False,
        in_columns: bool = False,
    ) -> MemoryConsumer:
        """``read_committed`` changes nothing: the twin has no transactions. Neither does ``in_columns``."""
        del read_committed, in_columns
        consumer = MemoryConsumer(self, group=group, member=member)
        self._members.append(consumer)
        return consumer

    def producer(self) -> MemoryProducer:
        return MemoryProducer(self)

    def admin(self) -> MemoryAdmin:
        return MemoryAdmin(self)

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

    @property
    def reaches_coordinator(self) -> bool:
        return self._coordinator.is_set()

    def cut_coordinator(self) -> None:
        """Lose the group's coordinator alone: the node fetches and produces as before."""
        self._coordinator.clear()
        for member in self._members:
            member.fall_silent("cut off")

    def restore_coordinator(self) -> None:
        self._coordinator.set()
        for member in self._members:
            member.speak_again("cut off")

    def freeze(self) -> None:
        """Calls wait and heartbeats stop; what is under way ends after the thaw."""
        self._running.clear()
        for member in self._members:
            member.fall_silent("frozen")

    def thaw(self) -> None:
        self._running.set()
        for member in self._members:
            member.speak_again("frozen")

    def kill(self) -> None:
        """Heartbeats stop, and every call of the node, waiting or new, raises CancelledError."""
        self.dead = True
        for member in self._members:
            member.die()
        self._running.set()
        self._coordinator.set()


class MemoryCluster(MemoryBroker, MemoryNode):
    """The twin: the broker, and in one with it the node "local".

    Made inside a running event loop; :meth:`close` ends its tasks.
    """

    def __init__(
        self,
        clock: Clock,
        rng: random.Random | None = None,
        faults: Faults | None = None,
        timings: MemoryTimings | None = None,
    ) -> None:
        MemoryBroker.__init__(self, clock, rng, faults, timings)
        MemoryNode.__init__(self, self, "local")
        self._nodes: dict[str, MemoryNode] = {self.name: self}

    def node(self, name: str) -> MemoryNode:
        """The process ``name``; a new one when there is none, or when it was killed."""
        node = self._nodes.get(name)
        if node is None or node.dead:
            node = self._nodes[name] = MemoryNode(self, name)
        return node


class MemoryProducer:
    """Fulfils :class:`headrace.kafka.interface.Producer`. Nothing fences it: a zombie's records are appended."""

    def __init__(self, process: MemoryNode) -> None:
        self._process = process
        self._turn = itertools.count()
        self._stopped = False

    @property
    def dead(self) -> bool:
        return self._stopped

    async def start(self) -> None:
        await self._process.point("metadata.before")

    async def stop(self) -> None:
        self._stopped = True

    async def send(self, topic: str, record: Outgoing, *, partition: int | None = None) -> Appended:
        if partition is None:
            partition = self._partition(topic, record)
        return await self._append(topic, partition, [record])

    async def send_many(
        self, topic: str, records: Sequence[Outgoing], *, partition: int | None = None
    ) -> list[Appended]:
        places: dict[int, list[int]] = {}
        for place, record in enumerate(records):
            number = self._partition(topic, record) if partition is None else partition
            places.setdefault(number, []).append(place)
        appended: dict[int, Appended] = {}
        for number, of_number in places.items():
            first = await self.send_batch(topic, number, [records[place] for place in of_number])
            appended |= {place: Appended(number, first.offset + index) for index, place in enumerate(of_number)}
        return [appended[place] for place in range(len(records))]

    async def send_batch(self, topic: str, partition: int, records: Sequence[Outgoing]) -> Appended:
        if not records:
            raise ValueError(f"send_batch to {topic}[{partition}] was given no records.")
        return Appended(partition, (await self.send_in_order(topic, partition, records))[0])

    async def send_in_order(self, topic: str, partition: int, records: Sequence[Outgoing]) -> list[int]:
        size = self._process.broker.timings.batch_records
        offsets: list[int] = []
        for at in range(0, len(records), size):
            some = records[at : at + size]
            first = (await self._append(topic, partition, some)).offset
            offsets += range(first, first + len(some))
        return offsets

    async def partitions_of(self, topic: str) -> frozenset[int]:
        await self._process.point("metadata.before")
        return self._process.broker.partition_numbers(topic)

    def _partition(self, topic: str, record: Outgoing) -> int:
        count = len(self._process.broker.topic(topic).partitions)
        return next(self._turn) % count if record.key is None else partition_of_key(record.key, count)

    async def _append(self, topic: str, partition: int, records: Sequence[Outgoing]) -> Appended:
        if self._stopped:
            raise ProducerDeadError(f"The producer was stopped, so nothing went to {topic}[{partition}].")
        await self._process.point("produce.before")
        broker = self._process.broker
        offset = broker.log(TopicPartition(topic, partition)).append_batch(records, broker.clock.now_ms())
        await self._process.point("produce.after")
        return Appended(partition, offset)


class MemoryAdmin:
    """Fulfils :class:`headrace.kafka.interface.Admin`."""

    def __init__(self, process: MemoryNode) -> None:
        self._process = process
        self._broker = process.broker

    async def start(self) -> None:
        await self._process.point("admin.before")

    async def stop(self) -> None:
        """Nothing is held."""

    async def broker_count(self) -> int:
        """The twin is one broker."""
        await self._process.point("admin.before")
        return 1

    async def describe_topics(self, names: Collection[str] | None = None) -> dict[str, TopicState]:
        await self._process.point("admin.before")
        return {
            topic.name: TopicState(
                name=topic.name,
                partitions=len(topic.partitions),
                replication=topic.replication,
                config=dict(topic.config),
            )
            for topic in self._broker.topics.values()
            if names is None or topic.name in names
        }

    async def create_topic(self, spec: TopicSpec) -> None:
        await self._process.point("admin.before")
        if spec.name in self._broker.topics:
            raise TopicExistsError(f"Topic {spec.name} is there already.")
        self._broker.create_topic(spec)
        await self._process.point("admin.after")

    async def add_partitions(self, topic: str, total: int) -> None:
        await self._process.point("admin.before")
        known = self._broker.topic(topic)
        if total <= len(known.partitions):
            raise KafkaError(
                f"Topic {topic} has {len(known.partitions)} partitions and can't be set to {total}: "
                "Kafka only ever adds partitions."
            )
        known.grow(total)
        self._broker.rebalance_readers(topic)
        await self._process.point("admin.after")

    async def alter_config(self, topic: str, config: Mapping[str, str]) -> None:
        await self._process.point("admin.before")
        self._broker.topic(topic).config.update(config)
        await self._process.point("admin.after")

    async def delete_topic(self, topic: str) -> None:
        await self._process.point("admin.before")
        self._broker.delete_topic(topic)
        await self._process.point("admin.after")

    async def delete_records(self, before: Mapping[TopicPartition, int]) -> None:
        await self._process.point("admin.before")
        for name, offset in before.items():
            if offset > self._broker.log(name).end:
                raise OffsetOutOfRangeError({name: offset})
        for name, offset in before.items():
            self._broker.log(name).truncate_before(offset)
        await self._process.point("admin.after")

    async def group_offsets(self, group: str) -> dict[TopicPartition, int]:
        await self._process.point("committed.before")
        return self._broker.committed(group)

    async def describe_group(self, group: str) -> GroupState:
        await self._process.point("admin.before")
        return self._broker.describe_group(group)

    async def permitted(self, topics: Collection[str], groups: Collection[str]) -> Permitted:
        """The twin has no rights, and says so."""
        await self._process.point("admin.before")
        return Permitted(dict.fromkeys(topics), dict.fromkeys(groups))
