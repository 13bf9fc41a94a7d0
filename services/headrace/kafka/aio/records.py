"""Consumed records as small structs, compressed batches within a limit, and records that aiokafka can't unpack.

aiokafka makes a dataclass of eleven fields for each record, a third of the cost of unpacking it. Here a consumer's
chunks make a struct of seven fields instead. A chunk also ends before a record that aiokafka can't unpack, where
aiokafka would raise and lose the records before it, and before a batch that grows past the limit.

:class:`TolerantReader` reads both in bounded steps. Kafka takes any bytes as a header's name, and aiokafka raises on a
name that is not UTF-8: a single such record would stop every consumer of its partition for good. aiokafka also unpacks
a compressed batch whole, however large it grows; the reader reads it as a stream, on a thread.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterator
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.legacy_records import LegacyRecordBatch
from aiokafka.structs import TopicPartition as TheirPartition

from headrace.kafka.aio.fetch_plan import FetchPlanner
from headrace.kafka.aio.fetch_sessions import FetchSessions
from headrace.kafka.aio.record_sets import CODEC_MASK, MAGIC_AT, Batch, Walk, batches, plain
from headrace.kafka.interface import FetchedRecord, TopicPartition, size_of
from headrace.kafka.packed_records import HEAD


def make_lean(consumer: AIOKafkaConsumer, *, limit: int, in_columns: bool = False) -> dict[Any, int]:
    """Make ``consumer`` hand over lean records, or ``in_columns`` where it can. It is started and has fetched nothing
    yet.

    A compressed batch of more than ``limit`` plain bytes is left out. Returns a dict of offsets by partition: a chunk
    ended there because the next record can't be unpacked.
    """
    fetcher = consumer._fetcher  # noqa: SLF001 - aiokafka offers no other way
    client = fetcher._client = _Remembering(FetchSessions(fetcher._client), every=in_columns)  # noqa: SLF001
    fetched = fetcher._records = _Fetched(client.raw, limit, in_columns=in_columns)  # noqa: SLF001
    fetcher._get_actions_per_node = FetchPlanner(fetcher)  # noqa: SLF001
    return fetched.unreadable


class _TooLongError(Exception):
    """A batch grows past the limit."""


class _Remembering:
    """The client of a fetcher. It keeps the compressed record sets of a reply, or ``every`` one, until the fetcher has
    read the reply.
    """

    def __init__(self, client: Any, *, every: bool) -> None:
        self._client = client
        self._every = every
        self.raw: dict[Any, bytes] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def send(self, node: Any, request: Any, **options: Any) -> Any:
        reply = await self._client.send(node, request, **options)
        # Requests for offsets have replies without record sets.
        if type(request).__name__.startswith("Fetch"):
            for topic, partitions in reply.topics:
                for number, _, _, *_, raw in partitions:
                    name = TheirPartition(topic, number)
                    self.raw.pop(name, None)
                    if raw and (self._every or any(batch.codec for batch in batches(raw))):
                        self.raw[name] = raw
        return reply


class _Fetched(OrderedDict[Any, Any]):
    """What was fetched and not yet handed over: a FetchResult or an error for each partition."""

    def __init__(self, raw: dict[Any, bytes], limit: int, *, in_columns: bool = False) -> None:
        super().__init__()
        self.unreadable: dict[Any, int] = {}
        self._raw = raw
        self._limit = limit
        # Only a worker's environment has what the columns are made of.
        module = import_module("headrace.kafka.aio.fetched_columns") if in_columns else None
        self._in_columns = None if module is None else module.FetchedColumns

    def __setitem__(self, name: Any, fetched: Any) -> None:
        chunk = getattr(fetched, "_partition_records", None)
        if chunk is not None:
            chunk._consumer_record = _lean  # noqa: SLF001
            raw = self._raw.pop(name, None)
            # A reader in columns knows nothing of aborted transactions.
            if raw is not None and self._in_columns and not chunk._aborted_transactions:  # noqa: SLF001
                read = partial(self._read, name, chunk)
                fetched.getall = self._in_columns(name, fetched, raw, read, self.unreadable, self._limit).getall
            else:
                records = chunk._records_iterator  # noqa: SLF001
                if raw is not None:
                    chunk._records = _Batches(raw, self._limit)  # noqa: SLF001
                    records = self._bounded(records)
                chunk._records_iterator = self._readable(name, chunk, records)  # noqa: SLF001
        super().__setitem__(name, fetched)

    def _read(self, name: Any, chunk: Any, raw: bytes) -> Iterator[FetchedRecord]:
        """The records of ``raw``, which is a part of the set of ``chunk``."""
        chunk._records = _Batches(raw, self._limit)  # noqa: SLF001
        return self._readable(name, chunk, chunk._unpack_records())  # noqa: SLF001

    def _readable(self, name: Any, chunk: Any, records: Iterator[FetchedRecord]) -> Iterator[FetchedRecord]:
        try:
            yield from records
        except (UnicodeDecodeError, _TooLongError):  # the first is of a header's name; keys and values are bytes
            self.unreadable[name] = chunk.next_fetch_offset

    def _bounded(self, records: Iterator[FetchedRecord]) -> Iterator[FetchedRecord]:
        """End the chunk after so many bytes, because one call may hand all of it over. The rest is fetched again."""
        size = 0
        for record in records:
            yield record
            size += size_of(record)
            if size >= self._limit:
                return


class _Batches:
    """Stands for aiokafka's MemoryRecords where some batch is compressed."""

    def __init__(self, raw: bytes, limit: int) -> None:
        self._left = batches(raw)
        self._limit = limit
        self._next = next(self._left, None)

    def has_next(self) -> bool:
        return self._next is not None

    def next_batch(self) -> Any:
        batch, self._next = self._next, next(self._left, None)
        assert batch is not None  # noqa: S101 - has_next was asked
        raw = bytes(batch.raw)
        theirs = LegacyRecordBatch(raw, raw[MAGIC_AT]) if batch.legacy else DefaultRecordBatch(raw)
        return _Bounded(batch, theirs, self._limit) if batch.codec else theirs


class _Bounded:
    """A compressed batch that is unpacked while it is iterated, as long as it stays below the limit."""

    def __init__(self, batch: Batch, theirs: Any, limit: int) -> None:
        self._batch = batch
        self._theirs = theirs
        self._limit = limit

    def __getattr__(self, name: str) -> Any:
        return getattr(self._theirs, name)

    def __iter__(self) -> Iterator[Any]:
        """Records as aiokafka makes them. Raises _TooLongError."""
        batch = self._batch
        unpacked = plain(batch.codec, batch.packed, self._limit)
        if unpacked is None:
            raise _TooLongError
        if batch.legacy:
            return iter(self._theirs)
        # The same batch as if it had never been compressed.
        head = list(HEAD.unpack_from(batch.raw))
        head[5] &= ~CODEC_MASK
        return iter(DefaultRecordBatch(HEAD.pack(*head) + unpacked))


def _lean(name: Any, record: Any) -> FetchedRecord:
    headers = record.headers
    return FetchedRecord(
        name.topic,
        name.partition,
        record.offset,
        record.timestamp,
        record.key,
        record.value,
        tuple(headers) if headers else (),
    )


WAIT_MS = 10
MOST_WALKS = 8
"""So many batches are kept open half read, of which each has a fetched record set and what its codec holds."""


class Fetched(NamedTuple):
    """Where a partition ends for the consumer that fetched it, and the record sets that came."""

    end: int
    raw: bytes


async def fetch_one(
    client: AIOKafkaClient,
    partition: TopicPartition,
    offset: int,
    *,
    wait_ms: int,
    max_bytes: int,
    read_committed: bool,
) -> Fetched | None:
    """Ask the leader of ``partition`` once for records from ``offset`` on. None without a leader, or after an error.

    Raises aiokafka's errors.
    """
    leader = client.cluster.leader_for_partition(TheirPartition(*partition))
    if leader is None or leader < 0:
        return None
    asked = [(partition.topic, [(partition.partition, offset, max_bytes)])]
    request = FetchRequest(wait_ms, 1, max_bytes, int(read_committed), asked)
    for _, partitions in (await client.send(leader, request)).topics:
        for _, error_code, high_watermark, last_stable_offset, *_, raw in partitions:
            if error_code == 0:
                return Fetched(last_stable_offset if read_committed else high_watermark, bytes(raw or b""))
    return None


class TolerantReader:
    """Reads for one consumer. ``limit`` bounds, in bytes, a record whose value is kept, and what a call returns."""

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

        A step may return no record and the same offset; the next step goes on from there. When the partition can't be
        read at the moment, the step returns nothing, and "more" is false. A header's name that is not UTF-8 has its
        bytes escaped. Raises aiokafka's errors.
        """
        # Removed while a thread uses it, so that a cancelled call leaves it to that thread.
        walk = self._walks.pop(partition, None)
        if walk is None or walk.position != offset:
            found = await fetch_one(
                self._client,
                partition,
                offset,
                wait_ms=WAIT_MS,
                max_bytes=self._max_bytes,
                read_committed=self._read_committed,
            )
            if found is None or not found.raw:
                return [], offset, False
            walk = Walk(found.raw, partition, offset, limit=self._limit)
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
