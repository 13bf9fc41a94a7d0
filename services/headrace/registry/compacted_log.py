"""A compacted topic of one partition as state: followed by a consumer, and written record by record under its key."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, Generic, Protocol, TypeVar

from headrace.kafka.interface import (
    Appended,
    BrokerUnavailableError,
    Cluster,
    Outgoing,
    Record,
    TopicPartition,
    UnknownTopicError,
)
from headrace.kafka.range_reader import ASKED_EVERY, EMPTY_FETCHES, FETCH_S
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
        if self.followed:
            self._consumer.assign([self._name])
        self._position = (await self._consumer.beginning_offsets([self._name]))[self._name]
        await self.refresh()

    async def stop(self) -> None:
        await self._consumer.stop()

    async def refresh(self) -> None:
        """Take in every record up to the end offset as it is now.

        Raises BrokerUnavailableError when the log gives nothing for a minute, and other KafkaErrors.
        """
        async with self._one_at_a_time:
            end = (await self._consumer.end_offsets([self._name]))[self._name]
            if not self.followed:
                self._consumer.assign([self._name])
            # What a fetch that failed or was cancelled had taken is fetched again.
            self._consumer.seek(self._name, self._position)
            empty = said_empty = 0
            try:
                while (before := self._position) < end:
                    if not await self._fetch(FETCH_S):
                        self._position = await self._consumer.position(self._name)
                    if self._position > before:
                        empty = said_empty = 0
                        continue
                    empty += 1
                    if empty % ASKED_EVERY == 0:
                        said_empty += await self._consumer.holds_nothing(self._name, before, end)
                    if said_empty > 1:
                        # Compaction left nothing at the log's end. The leader said so twice.
                        break
                    if empty == EMPTY_FETCHES:
                        raise BrokerUnavailableError(
                            f"{self._name.topic} gave nothing for {EMPTY_FETCHES * FETCH_S:.0f} s, though its log goes "
                            f"on from offset {before} to {end}. Is a broker away?"
                        )
            finally:
                if not self.followed:
                    self._consumer.assign(())

    async def look(self) -> None:
        """Take in the records of a topic that is ``followed`` which have come already, and wait for none."""
        async with self._one_at_a_time:
            await self._fetch(0.0)

    async def _fetch(self, timeout_s: float) -> bool:
        """Take in the next records; whether there were any."""
        chunk = (await self._consumer.fetch(max_records=1000, timeout_s=timeout_s)).get(self._name, ())
        for record in chunk:
            self._take(record)
            self._position = record.offset + 1
        return bool(chunk)

    def _take(self, record: Record) -> None:
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
