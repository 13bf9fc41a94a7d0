"""Records that aiokafka can't unpack, read beside it in bounded steps.

Kafka takes any bytes as the name of a header, and aiokafka raises on one that is no UTF-8. A single such record would
stop every consumer of its partition for good. And a compressed batch is unpacked whole by aiokafka, whatever it grows
to. Here it is gone through as a stream, on a thread.
"""

from __future__ import annotations

import asyncio

from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.structs import TopicPartition as TheirPartition

from headrace.kafka.aio.record_sets import Walk
from headrace.kafka.interface import FetchedRecord, TopicPartition, size_of

WAIT_MS = 10
MOST_WALKS = 8
"""So many batches are kept open half read, of which each has a fetched record set and what its codec holds."""


class TolerantReader:
    """Reads for one consumer. ``limit`` is how large a record may be that is kept, and how much a call brings."""

    def __init__(self, client: AIOKafkaClient, *, read_committed: bool, max_bytes: int, limit: int) -> None:
        self._client = client
        self._read_committed = read_committed
        self._max_bytes = max_bytes
        self._limit = limit
        self._walks: dict[TopicPartition, Walk] = {}
        self.steps = 0
        """Made so far."""

    async def read(self, partition: TopicPartition, offset: int, most: int) -> tuple[list[FetchedRecord], int, bool]:
        """At most ``most`` records from ``offset`` on, the offset behind them, and whether there is more to read here.

        A step may bring no record and the offset as it was: then the next one goes on. So it does nothing more when the
        partition can't be read at this moment, without more. A header's name that is no UTF-8 is shown with its bytes
        escaped. Raises aiokafka's errors.
        """
        # Taken out while a thread has it: a call that is cancelled leaves it to that thread.
        walk = self._walks.pop(partition, None)
        if walk is None or walk.position != offset:
            raw = await self._fetched(partition, offset)
            if not raw:
                return [], offset, False
            walk = Walk(raw, partition, offset, limit=self._limit)
        records, more = await asyncio.to_thread(self._step, walk, most)
        self.steps += 1
        if more:
            while len(self._walks) >= MOST_WALKS:
                del self._walks[next(iter(self._walks))]
            self._walks[partition] = walk
        return records, walk.position, more

    def _step(self, walk: Walk, most: int) -> tuple[list[FetchedRecord], bool]:
        records: list[FetchedRecord] = []
        size = 0
        for record in walk.steps:
            if record is None:
                return records, True
            records.append(record)
            size += size_of(record)
            if len(records) == most or size >= self._limit:
                return records, True
        return records, False

    async def _fetched(self, partition: TopicPartition, offset: int) -> bytes:
        leader = self._client.cluster.leader_for_partition(TheirPartition(*partition))
        if leader is None or leader < 0:
            return b""
        asked = [(partition.topic, [(partition.partition, offset, self._max_bytes)])]
        request = FetchRequest(WAIT_MS, 1, self._max_bytes, int(self._read_committed), asked)
        for _, partitions in (await self._client.send(leader, request)).topics:
            for _, error_code, *_, raw in partitions:
                if error_code == 0:
                    return bytes(raw)
        return b""
