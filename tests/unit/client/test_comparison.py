"""Joining two answer logs on the twin: repeats, holes, different beginnings and ends, and the texts of examples."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from headrace.client.comparison import Side, compare_logs
from headrace.core.agreement import Agreement
from headrace.kafka.interface import BrokerUnavailableError, Outgoing, TopicPartition, TopicSpec, UnknownTopicError
from headrace.kafka.range_reader import read_texts
from headrace_schemas.codec import encode_request, encode_result
from headrace_schemas.paths import RequestShape, compile_shape
from headrace_schemas.records import ClassifyRequest, ClassifyResult, Status
from tests.support.memory_kafka import MemoryCluster
from tests.support.turned_loop import TurnedClock, run_turned

LIMIT_S = 1000.0
"""On the turned clock, so it passes at once where a test waits in vain."""
Log = Sequence[tuple[int, str]]
"""Offset and label of each answer of one partition, in the order in which they were written."""


def compared(a: Sequence[Log], b: Sequence[Log], *, last: int = 10_000) -> Agreement:
    async def main() -> Agreement:
        clock = TurnedClock()
        cluster = MemoryCluster(clock)
        for topic, version, partitions in (("ra", "v1", a), ("rb", "v2", b)):
            cluster.create_topic(TopicSpec(name=topic, partitions=len(partitions)))
            for number, log in enumerate(partitions):
                results = [
                    ClassifyResult(offset=at, after=at - 1, crc=0, status=Status.OK, version=version, label=label)
                    for at, label in log
                ]
                if results:
                    records = [Outgoing(encode_result(result)) for result in results]
                    await cluster.producer().send_batch(topic, number, records)
                # Behind a transaction's marker there is an offset without a record.
                cluster.log(TopicPartition(topic, number)).add_gap()
        try:
            return await compare_logs(cluster, Side("ra", "v1"), Side("rb", "v2"), last=last, examples=5)
        finally:
            await cluster.close()

    return run_turned(main())


def forty_answers(version: str) -> list[Outgoing]:
    return [
        Outgoing(
            encode_result(ClassifyResult(offset=at, after=at - 1, crc=0, status=Status.OK, version=version, label="x"))
        )
        for at in range(40)
    ]


def same(*offsets: int) -> Log:
    return [(offset, "x") for offset in offsets]


def test_answers_are_joined_by_partition_and_offset() -> None:
    agreement = compared([[(0, "x"), (1, "y")], [(0, "z")]], [[(0, "x"), (1, "x")], [(0, "z")]])
    assert (agreement.requests, agreement.agreeing) == (3, 2)
    assert [(one.partition, one.offset, one.a, one.b) for one in agreement.examples] == [(0, 1, "y", "x")]


def test_a_repeat_of_a_zombie_is_not_a_second_answer() -> None:
    agreement = compared([[(0, "x"), (1, "x"), (0, "y"), (1, "y"), (2, "x")]], [same(0, 1, 2)])
    assert (agreement.requests, agreement.agreeing) == (3, 3)


def test_answers_that_one_log_lacks_between_its_ends_are_counted() -> None:
    agreement = compared([same(0, 1, 2, 4, 5)], [same(0, 2, 3, 5)])
    assert (agreement.requests, agreement.only_a, agreement.only_b) == (3, 2, 1)


def test_a_challenger_that_began_later_or_lags_behind_lacks_nothing() -> None:
    agreement = compared([same(*range(100))], [same(*range(40, 70))])
    assert (agreement.requests, agreement.only_a, agreement.only_b) == (30, 0, 0)
    turned = compared([same(*range(40, 70))], [same(*range(100))])
    assert (turned.requests, turned.only_a, turned.only_b) == (30, 0, 0)


def test_the_last_answers_can_be_asked_for_alone() -> None:
    whole = [(offset, "x") for offset in range(90)] + [(offset, "y") for offset in range(90, 100)]
    agreement = compared([whole, same(*range(50))], [same(*range(100)), same(*range(50))], last=40)
    # Two offsets of the forty hold no record.
    assert (agreement.requests, agreement.agreeing) == (38, 28)


def test_a_log_without_answers_has_nothing_in_common() -> None:
    assert compared([same(0, 1)], [[]]).requests == 0


def test_a_topic_that_is_not_there_is_named() -> None:
    async def main() -> None:
        cluster = MemoryCluster(TurnedClock())
        cluster.create_topic(TopicSpec(name="ra", partitions=1))
        sides = Side("ra", "v1"), Side("nowhere", "v2")
        with pytest.raises(UnknownTopicError, match="no topic nowhere"):
            await compare_logs(cluster, *sides, last=1, examples=1)

    run_turned(main())


def test_texts_are_read_where_they_still_are() -> None:
    async def main() -> None:
        cluster = MemoryCluster(TurnedClock())
        cluster.create_topic(TopicSpec(name="requests", partitions=2))
        values = [encode_request(ClassifyRequest(text=text)) for text in ("zero", "one")] + [b"\xff"]
        await cluster.producer().send_batch("requests", 1, [Outgoing(value) for value in values])
        cluster.log(TopicPartition("requests", 1)).truncate_before(1)
        consumer = cluster.consumer()
        await consumer.start()
        texts = await read_texts(consumer, "requests", [(1, 0), (1, 1), (1, 2)], compile_shape(RequestShape()))
        assert texts == {(1, 1): "one"}
        await consumer.stop()
        await cluster.close()

    run_turned(main())


class Deletes:
    """Takes a topic away at a fetch, as somebody may while it is read."""

    def __init__(self, topic: str, fetches: int) -> None:
        self.topic = topic
        self.fetches = fetches
        self.cluster: MemoryCluster | None = None

    async def point(self, member: str, name: str) -> None:
        del member
        self.fetches -= name == "fetch.before"
        if not self.fetches and self.cluster is not None and self.topic in self.cluster.topics:
            self.cluster.delete_topic(self.topic)
        await asyncio.sleep(0)


def test_a_log_that_gives_no_more_ends_the_comparison_and_what_is_missing_is_said() -> None:
    async def main() -> None:
        clock, deletes = TurnedClock(), Deletes("rb", 2)
        cluster = deletes.cluster = MemoryCluster(clock, faults=deletes)
        for topic in ("ra", "rb"):
            cluster.create_topic(TopicSpec(name=topic, partitions=1))
            await cluster.producer().send_batch(topic, 0, forty_answers(topic))
        with pytest.raises(BrokerUnavailableError, match=r"rb\[0\] from 0 up to 40"):
            async with asyncio.timeout(LIMIT_S):
                await compare_logs(cluster, Side("ra", "ra"), Side("rb", "rb"), last=100, examples=1)
        await cluster.close()

    run_turned(main())


def test_a_text_that_can_not_be_read_is_said_and_not_left_out() -> None:
    async def main() -> None:
        deletes = Deletes("requests", 1)
        cluster = deletes.cluster = MemoryCluster(TurnedClock(), faults=deletes)
        cluster.create_topic(TopicSpec(name="requests", partitions=1))
        await cluster.producer().send("requests", Outgoing(encode_request(ClassifyRequest(text="zero"))))
        consumer = cluster.consumer()
        await consumer.start()
        with pytest.raises(BrokerUnavailableError, match=r"requests\[0\] from 0 up to 1"):
            async with asyncio.timeout(LIMIT_S):
                await read_texts(consumer, "requests", [(0, 0)], compile_shape(RequestShape()))
        await consumer.stop()
        await cluster.close()

    run_turned(main())


def test_a_log_that_retention_cuts_while_it_is_read_is_compared_as_far_as_it_is_there() -> None:
    async def main() -> None:
        clock = TurnedClock()
        cluster = MemoryCluster(clock)

        class Cuts:
            async def point(self, member: str, name: str) -> None:
                del member
                if name == "fetch.before":
                    cluster.log(TopicPartition("ra", 0)).truncate_before(30)
                await asyncio.sleep(0)

        for topic in ("ra", "rb"):
            cluster.create_topic(TopicSpec(name=topic, partitions=1))
            await cluster.producer().send_batch(topic, 0, forty_answers(topic))
        cluster.faults = Cuts()
        agreement = await compare_logs(cluster, Side("ra", "ra"), Side("rb", "rb"), last=100, examples=1)
        assert (agreement.requests, agreement.agreeing) == (10, 10)
        await cluster.close()

    run_turned(main())
