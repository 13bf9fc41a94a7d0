"""Where the texts of calls are published, and in which portions."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from headrace.core.clock import Clock, SystemClock
from headrace.gateway.batches import UNPUBLISHED, Batch, Unanswered
from headrace.gateway.sender import (
    BUSY,
    GATHERS_S,
    MOST_BYTES,
    MOST_RECORDS,
    TOGETHER,
    PartitionSender,
    Queued,
    Senders,
)
from headrace.kafka.aio.producer import partition_of_key
from headrace.kafka.interface import Outgoing


class Log:
    """Stands for publisher and follower: what was published together, and which texts are waited for where."""

    def __init__(self) -> None:
        self.portions: list[Sequence[Outgoing]] = []
        self.expected: dict[int, int] = {}
        self.end = 100

    async def begin(self, _: Sequence[int]) -> None:
        pass

    @contextmanager
    def publishing(self, _: int) -> Iterator[None]:
        yield

    async def publish_to(self, _: int, records: Sequence[Outgoing]) -> list[int]:
        self.portions.append(records)
        self.end += len(records)
        return list(range(self.end - len(records), self.end))

    def expect(self, _: int, offsets: Sequence[int], records: Any, batch: Batch, texts: Sequence[int]) -> None:
        self.expected |= dict(zip(texts, offsets, strict=True))


class Paused(SystemClock):
    """Sleeps until it is told to go on."""

    def __init__(self) -> None:
        self.sleeps = asyncio.Event()
        self.goes_on = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        assert seconds == GATHERS_S
        self.sleeps.set()
        await self.goes_on.wait()


def sender_of(log: Any, clock: Clock | None = None, waiting: int = 0) -> PartitionSender:
    return PartitionSender(3, log, log, clock or SystemClock(), lambda: waiting)


def senders_of(log: Any, owned: Collection[int] = ()) -> Senders:
    senders = Senders(log, log, SystemClock(), owned=lambda: owned, waiting=lambda: 0)
    senders.partitions = (0, 1, 2, 3)
    return senders


async def test_texts_are_published_in_order_and_in_portions_within_both_bounds() -> None:
    log, size = Log(), MOST_RECORDS + 10
    records = [Outgoing(b"%d" % number) for number in range(size)]
    large = Outgoing(bytes(MOST_BYTES // 2))
    batch = Batch(size + 3)
    sender = sender_of(log)
    sender.put(Queued(batch, range(size), records))
    sender.put(Queued(batch, [size + 2, size, size + 1], [large] * 3))
    assert sender.queued == size + 3
    await batch.published
    assert sender.queued == 0
    assert [record for portion in log.portions for record in portion] == [*records, large, large, large]
    assert [len(portion) for portion in log.portions] == [MOST_RECORDS, 10 + 2, 1]
    assert log.expected[7] == 107
    assert batch.places[size + 2] == (3, 100 + size)
    assert log.expected == {number: place[1] for number, place in enumerate(batch.places) if place is not None}


async def test_what_nobody_waits_for_any_more_is_not_published() -> None:
    log, gone, stays = Log(), Batch(2), Batch(1)
    sender = sender_of(log)
    sender.put(Queued(gone, [0, 1], [Outgoing(b"a"), Outgoing(b"b")]))
    sender.put(Queued(stays, [0], [Outgoing(b"c")]))
    gone.abandoned = True
    await stays.published
    assert log.portions == [[Outgoing(b"c")]]
    assert all(isinstance(one, Unanswered) and one.status == UNPUBLISHED for one in gone.outcomes)


async def test_texts_go_to_the_partition_of_their_key_and_many_others_to_all_that_this_gateway_reads() -> None:
    senders = senders_of(Log(), {1, 2})
    keyed = [Outgoing(b"k", b"user-%d" % number) for number in range(20)]
    others = [Outgoing(b"%d" % number) for number in range(2 * TOGETHER)]
    records = [*keyed, *others]
    batch = Batch(len(records))
    parts = senders.divided(batch, records)
    for partition, queued in parts.items():
        assert list(queued.records) == [records[number] for number in queued.numbers]
        assert all(one.key is None or partition_of_key(one.key, 4) == partition for one in queued.records)
    assert sorted(number for queued in parts.values() for number in queued.numbers) == list(range(len(records)))
    unkeyed = {at: sum(one.key is None for one in queued.records) for at, queued in parts.items()}
    assert {at: count for at, count in unkeyed.items() if count} == {1: TOGETHER, 2: TOGETHER}
    few = senders.divided(batch, others[:3])
    assert len(few) == 1
    assert few.keys() <= {1, 2}


async def test_small_calls_share_a_partition_until_they_are_many() -> None:
    senders = senders_of(Log(), {0, 1, 2, 3})
    senders._stays_until_s = float("inf")
    records = [Outgoing(b"a")] * (TOGETHER // 4)
    chosen = [next(iter(senders.divided(Batch(len(records)), records))) for _ in range(8)]
    assert len(set(chosen[:4])) == 1
    assert len(set(chosen[4:])) == 1
    assert chosen[0] != chosen[4]


async def test_a_busy_gateway_gathers_texts_and_an_idle_one_sends_at_once() -> None:
    log, clock = Log(), Paused()
    sender = sender_of(log, clock, waiting=2 * BUSY)
    first, second = Batch(1), Batch(2)
    sender.put(Queued(first, [0], [Outgoing(b"a")]))
    await clock.sleeps.wait()
    sender.put(Queued(second, [0, 1], [Outgoing(b"b"), Outgoing(b"c")]))
    clock.goes_on.set()
    await asyncio.wait([first.published, second.published])
    assert log.portions == [[Outgoing(b"a"), Outgoing(b"b"), Outgoing(b"c")]]
    for waiting, texts in ((BUSY - 1, 1), (2 * BUSY, BUSY), (10 * TOGETHER, TOGETHER)):
        clock, batch = Paused(), Batch(texts)
        sender = sender_of(log, clock, waiting)
        sender.put(Queued(batch, range(texts), [Outgoing(b"d")] * texts))
        await batch.published
        assert not clock.sleeps.is_set()


async def test_a_part_without_texts_is_nothing_to_publish() -> None:
    log = Log()
    senders = senders_of(log)
    batch = Batch(1)
    senders.put({0: Queued(batch, [], []), 1: Queued(batch, [0], [Outgoing(b"a")])})
    await batch.published
    assert log.portions == [[Outgoing(b"a")]]
