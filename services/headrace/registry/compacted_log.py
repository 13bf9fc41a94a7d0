"""A compacted topic of one partition as state: read by a consumer, and written record by record under its key."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, Generic, Protocol, TypeVar

from headrace.kafka.interface import (
    Appended,
    Cluster,
    Outgoing,
    Record,
    TopicPartition,
    UnknownTopicError,
)
from headrace.kafka.range_reader import read_ranges
from headrace.process.logs import event
from headrace_schemas.errors import WireError

R = TypeVar("R")


class CompactedLog(ABC, Generic[R]):
    """Reads the topic with a consumer of its own, from its beginning; :meth:`refresh` reads to its present end.

    The topic has one partition, so its order is the order of decisions. A record that can't be decoded, or whose key
    is not the one that keeps such a record, is left out and said as the event ``rubbish``. What is ``followed`` is
    fetched all the time, and :meth:`look` takes what came; anything else only while it is refreshed.
    """

    rubbish: ClassVar[str]
    followed: ClassVar[bool]

    def __init__(self, cluster: Cluster, topic: str) -> None:
        self._consumer = cluster.consumer()
        self._name = TopicPartition(topic, 0)
        self._position = 0
        self._one_at_a_time = asyncio.Lock()

    @abstractmethod
    def _decode(self, value: bytes | None) -> R | None:
        """The record of a value, None for a tombstone; raises a WireError."""

    @abstractmethod
    def _key(self, record: R) -> bytes:
        """The key that keeps ``record``; raises BadKeyError."""

    @abstractmethod
    def _keep(self, record: R) -> None:
        """Take ``record`` in; raises a WireError for one that can't be meant."""

    @abstractmethod
    def _forget(self, key: bytes | None) -> None:
        """A tombstone removes what was kept under ``key``."""

    async def start(self) -> None:
        """Raises UnknownTopicError when the topic is not there."""
        await self._consumer.start()
        if 0 not in await self._consumer.partitions_of(self._name.topic):
            raise UnknownTopicError(
                f"There is no topic {self._name.topic}. Create headrace's topics with `headrace topics apply`."
            )
        self._position = (await self._consumer.beginning_offsets([self._name]))[self._name]
        await self.refresh()

    async def stop(self) -> None:
        await self._consumer.stop()

    async def refresh(self) -> None:
        """Take in every record up to the end offset as it is now. Raises as read_ranges does."""
        async with self._one_at_a_time:
            end = (await self._consumer.end_offsets([self._name]))[self._name]
            try:
                async for records in read_ranges(self._consumer, {self._name: self._position}, {self._name: end}):
                    self._take(records)
                # The last offsets may hold no record.
                self._position = max(self._position, end)
            finally:
                if self.followed:
                    self._consumer.assign([self._name])
                    self._consumer.seek(self._name, self._position)
                else:
                    self._consumer.assign(())

    async def look(self) -> None:
        """Take in the records of a topic that is ``followed`` which have come already, and wait for none."""
        async with self._one_at_a_time:
            chunks = await self._consumer.fetch(max_records=1000, timeout_s=0.0)
            self._take(chunks.get(self._name, ()))

    def _take(self, records: Sequence[Record]) -> None:
        for record in records:
            self._take_one(record)
            self._position = record.offset + 1

    def _take_one(self, record: Record) -> None:
        try:
            decoded = self._decode(record.value)
            if decoded is None:
                self._forget(record.key)
            elif (key := self._key(decoded)) == record.key:
                self._keep(decoded)
            else:
                event(self.rubbish, level="warning", offset=record.offset, error=f"its key is not {key.decode()}")
        except WireError as error:
            event(self.rubbish, level="warning", offset=record.offset, error=str(error))


class BatchSender(Protocol):
    """The part of a producer that writing needs."""

    async def send_batch(self, topic: str, partition: int, records: Sequence[Outgoing]) -> Appended: ...


class CompactedWriter(Generic[R]):
    """Appends to ``topic`` by ``sender`` and waits for the acknowledgement. Raises what the sender raises."""

    def __init__(
        self, sender: BatchSender, topic: str, *, encode: Callable[[R], bytes], key: Callable[[R], bytes]
    ) -> None:
        self._sender = sender
        self._topic = topic
        self._encode = encode
        self._key = key

    async def publish(self, records: Sequence[R]) -> None:
        await self._send([Outgoing(self._encode(record), self._key(record)) for record in records])

    async def forget(self, records: Sequence[R]) -> None:
        """Take records back, by tombstones."""
        await self._send([Outgoing(None, self._key(record)) for record in records])

    async def _send(self, records: Sequence[Outgoing]) -> None:
        await self._sender.send_batch(self._topic, 0, records)
