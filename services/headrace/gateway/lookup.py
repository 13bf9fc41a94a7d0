"""Finds one request, and its answer, in the log by where the request is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

from headrace.kafka.interface import Cluster, Consumer, OffsetOutOfRangeError, Record, TopicPartition
from headrace.kafka.range_reader import read_ranges
from headrace_schemas.codec import decode_result
from headrace_schemas.errors import WireError
from headrace_schemas.headers import TENANT, Headers, content_type
from headrace_schemas.records import ClassifyResult

CONSUMERS = 4
"""So many look at once; who comes later waits."""
WINDOW = 512
FAR = 4096
"""Answers read at each look: for one, and for many."""
MOST_LOOKS = 48
NEAR = 16_384
"""Repeats may stand so far behind the first of an answer: at the end all near it are read."""


class NotThereError(Exception):
    """The log has no such request."""


class Found(NamedTuple):
    """An answer, and whose request it was."""

    result: ClassifyResult
    tenant: bytes | None


def tenant_of(headers: Headers) -> bytes | None:
    """The header ``tenant``; of several the last."""
    return next((value for name, value in reversed(headers) if name == TENANT), None)


class Lookup:
    """Over the topics ``requests`` and ``results``. Consumers connect when they are first needed."""

    def __init__(self, cluster: Cluster, requests: str, results: str) -> None:
        self._cluster = cluster
        self._requests = requests
        self._results = results
        self._free: list[Consumer] = []
        self._turn = asyncio.Semaphore(CONSUMERS)

    async def stop(self) -> None:
        """End the consumers that are free."""
        free, self._free = self._free, []
        for consumer in free:
            await consumer.stop()

    async def tenant(self, place: tuple[int, int]) -> bytes | None:
        """Whose the request at ``place`` is. Raises NotThereError, LookupError where it is too old, KafkaErrors."""
        name = TopicPartition(self._requests, place[0])
        async with self.consumer() as consumer:
            if place[0] not in await consumer.partitions_of(self._requests):
                raise NotThereError
            begin = (await consumer.beginning_offsets([name]))[name]
            end = (await consumer.end_offsets([name]))[name]
            if place[1] >= end:
                raise NotThereError
            if place[1] < begin:
                raise LookupError
            for record in await _records(consumer, name, place[1], place[1] + 1):
                return tenant_of(record.headers)
        raise NotThereError

    async def answer(self, place: tuple[int, int]) -> Found | None:
        """The answer to the request at ``place``; None while there is none.

        Raises NotThereError where later requests were answered and it was not, and KafkaErrors.
        """
        number, offset = place
        name = TopicPartition(self._results, number)
        async with self.consumer() as consumer:
            if number not in await consumer.partitions_of(self._results):
                raise NotThereError
            low = (await consumer.beginning_offsets([name]))[name]
            high = (await consumer.end_offsets([name]))[name]
            return await _search(consumer, name, low, high, offset)

    async def answers(self, number: int, offsets: Collection[int]) -> tuple[dict[int, Found], int]:
        """The answers to the requests at ``offsets`` of partition ``number``, and the highest request that was seen
        answered, -1 for none: those in front of it that are missing have no answer and never will. Raises KafkaErrors.
        """
        name = TopicPartition(self._results, number)
        wanted, last = frozenset(offsets), max(offsets)
        found: dict[int, Found] = {}
        highest = -1
        async with self.consumer() as consumer:
            if number not in await consumer.partitions_of(self._results):
                return found, highest
            low = (await consumer.beginning_offsets([name]))[name]
            high = (await consumer.end_offsets([name]))[name]
            at = max(low, await _begin(consumer, name, low, high, min(offsets)) - NEAR)
            past = 0
            while at < high and past < NEAR:
                some = await _answers(consumer, name, at, min(at + FAR, high))
                at += FAR
                for offset, one in some.items():
                    if offset in wanted:
                        found.setdefault(offset, one)
                highest = max(highest, max(some, default=-1))
                if len(found) == len(wanted):
                    break
                past += FAR if highest > last else 0
        return found, highest

    @asynccontextmanager
    async def consumer(self) -> AsyncIterator[Consumer]:
        """One of the consumers, once it is free; it has no assignment of its own."""
        async with self._turn:
            if self._free:
                consumer = self._free.pop()
            else:
                consumer = self._cluster.consumer()
                await consumer.start()
            try:
                yield consumer
            except (NotThereError, LookupError):
                # What was read was read whole; who asks for nothing costs no connection.
                self._free.append(consumer)
                raise
            except BaseException:
                # A read that was cut off leaves an assignment behind.
                await consumer.stop()
                raise
            self._free.append(consumer)


async def _begin(consumer: Consumer, name: TopicPartition, low: int, high: int, offset: int) -> int:
    """Somewhere in front of the answer to ``offset``, no further than NEAR, by halving the log."""
    while high - low > NEAR:
        middle = (low + high) // 2
        some = await _answers(consumer, name, middle, min(middle + WINDOW, high))
        if some and min(some) <= offset:
            low = middle
        else:
            high = middle
    return low


async def _search(consumer: Consumer, name: TopicPartition, low: int, high: int, offset: int) -> Found | None:
    """Find the answer to ``offset`` between ``low`` and ``high``, by where it would stand if none were missing."""
    first, last = low, high
    start = max(low, high - WINDOW)
    for look in range(MOST_LOOKS):
        found = await _answers(consumer, name, start, min(start + WINDOW, high))
        if offset in found:
            return found[offset]
        if not look and (not found or offset > max(found)):
            return None
        if not found:
            break
        if offset > max(found):
            low = start + WINDOW
            guess = start + offset - min(found)
        else:
            high = start
            guess = start - (min(found) - offset)
        if low >= high:
            break
        start = max(low, min(guess - WINDOW // 2, high - 1))
    near = await _answers(consumer, name, max(first, min(low, high) - NEAR), min(last, max(low, high) + NEAR))
    if offset in near:
        return near[offset]
    raise NotThereError


async def _answers(consumer: Consumer, name: TopicPartition, start: int, end: int) -> dict[int, Found]:
    found: dict[int, Found] = {}
    for record in await _records(consumer, name, start, end):
        try:
            result = decode_result(record.value, content_type(record.headers))
        except WireError:  # somebody else wrote here
            continue
        found.setdefault(result.offset, Found(result, tenant_of(record.headers)))
    return found


async def _records(consumer: Consumer, name: TopicPartition, start: int, end: int) -> Sequence[Record]:
    if start >= end:
        return ()
    records: list[Record] = []
    try:
        async for some in read_ranges(consumer, {name: start}, {name: end}, chunk=WINDOW):
            records += some
    except OffsetOutOfRangeError:  # retention took them meanwhile
        consumer.assign(())
    return records
