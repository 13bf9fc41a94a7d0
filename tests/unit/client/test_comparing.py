"""Joining two answer logs on the twin: repeats, holes, different beginnings and ends, and the texts of examples."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from headrace.client.comparing import Side, compare_logs, read_texts
from headrace.core.agreement import Agreement
from headrace.kafka.errors import UnknownTopicError
from headrace.kafka.interface import Outgoing, TopicPartition, TopicSpec
from headrace.kafka.memory import MemoryCluster
from headrace_schemas.codec import encode_request, encode_result
from headrace_schemas.paths import RequestShape, compile_shape
from headrace_schemas.records import ClassifyRequest, ClassifyResult, Status
from tests.support.turned_loop import TurnedClock, run_turned

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
                cluster.add_gap(TopicPartition(topic, number))
        try:
            return await compare_logs(
                cluster, Side("ra", "v1"), Side("rb", "v2"), last=last, examples=5, max_batch=8, clock=clock
            )
        finally:
            await cluster.close()

    return run_turned(main())


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
            await compare_logs(cluster, *sides, last=1, examples=1, max_batch=8, clock=TurnedClock())

    run_turned(main())


def test_texts_are_read_where_they_still_are() -> None:
    async def main() -> None:
        cluster = MemoryCluster(TurnedClock())
        cluster.create_topic(TopicSpec(name="requests", partitions=2))
        values = [encode_request(ClassifyRequest(text=text)) for text in ("zero", "one")] + [b"\xff"]
        await cluster.producer().send_batch("requests", 1, [Outgoing(value) for value in values])
        cluster.truncate(TopicPartition("requests", 1), 1)
        consumer = cluster.consumer()
        await consumer.start()
        texts = await read_texts(consumer, "requests", [(1, 0), (1, 1), (1, 2)], compile_shape(RequestShape()))
        assert texts == {(1, 1): "one"}
        await consumer.stop()
        await cluster.close()

    run_turned(main())
