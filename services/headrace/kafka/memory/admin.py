"""The twin's admin client."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from headrace.kafka.interface import (
    KafkaError,
    OffsetOutOfRangeError,
    TopicExistsError,
    TopicPartition,
    TopicSpec,
    TopicState,
)
from headrace.kafka.memory.broker import MemoryProcess


class MemoryAdmin:
    """Fulfils :class:`headrace.kafka.interface.Admin`."""

    def __init__(self, process: MemoryProcess) -> None:
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
