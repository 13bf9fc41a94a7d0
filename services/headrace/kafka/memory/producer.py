"""The twin's producer. Nothing fences it: a zombie's records are appended, as with Kafka."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from headrace.kafka.interface import Appended, Outgoing, ProducerDeadError, TopicPartition
from headrace.kafka.memory.broker import MemoryProcess
from headrace.kafka.partitioner import partition_of_key


class MemoryProducer:
    """Fulfils :class:`headrace.kafka.interface.Producer`."""

    def __init__(self, process: MemoryProcess) -> None:
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
        size = self._process.broker.timings.batch_records
        first = await self._append(topic, partition, records[:size])
        for at in range(size, len(records), size):
            await self._append(topic, partition, records[at : at + size])
        return first

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
