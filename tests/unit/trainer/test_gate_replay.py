"""Replay: the last requests of a topic, answered by both versions and counted."""

import zlib
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.gate import ClassChange, Replayed
from headrace.kafka.interface import BrokerUnavailableError, Outgoing, TopicPartition, TopicSpec
from headrace.trainer.gate import CHUNK, Answer, replay, tails
from headrace_schemas.codec import encode_request
from headrace_schemas.paths import RequestShape, compile_shape
from headrace_schemas.records import ClassifyRequest
from tests.support.memory_kafka import MemoryCluster
from tests.support.turned_loop import TurnedClock, run_turned
from tests.support.turned_tests import after_a_moment

TOPIC = "requests"


def by_length(texts: Sequence[bytes]) -> list[str | None]:
    return ["long" if len(text) > 4 else "short" for text in texts]


def abstaining(texts: Sequence[bytes]) -> list[str | None]:
    return [None if len(text) > 4 else "short" for text in texts]


def by_hash(texts: Sequence[bytes]) -> list[str | None]:
    return [f"label {zlib.crc32(text) % 3}" for text in texts]


def replayed(
    values: Sequence[Sequence[bytes | None]],
    count: int,
    candidate: Answer = by_length,
    champion: Answer = by_length,
    *,
    silent: bool = False,
    **shape: Any,
) -> Replayed:
    """Replay over a twin whose partition p holds ``values[p]``; a ``silent`` one gives no records."""
    clock = TurnedClock()

    async def fetch_nothing(*, timeout_s: float, **_: Any) -> dict[TopicPartition, list[Any]]:
        await clock.sleep(timeout_s)
        return {}

    async def main() -> Replayed:
        cluster = MemoryCluster(clock)
        if values:
            cluster.create_topic(TopicSpec(name=TOPIC, partitions=len(values)))
        for partition, records in enumerate(values):
            if records:
                await cluster.producer().send_batch(TOPIC, partition, [Outgoing(value) for value in records])
        consumer = cluster.consumer()
        if silent:
            consumer.fetch = fetch_nothing
        await consumer.start()
        try:
            return await replay(
                consumer,
                TOPIC,
                count,
                decode=compile_shape(RequestShape(**shape)),
                candidate=candidate,
                champion=champion,
                offload=after_a_moment,
            )
        finally:
            await consumer.stop()
            await cluster.close()

    return run_turned(main())


def request(text: str) -> bytes:
    return encode_request(ClassifyRequest(text=text))


def test_the_last_requests_of_every_partition_are_answered_by_both() -> None:
    old, new = [request("old and gone")] * 50, [request(f"{number}") for number in range(30)]
    result = replayed([old + new, new, []], 60, candidate=by_hash)
    assert (result.requests, result.changed, result.unreadable) == (60, 60, 0)
    assert [one.label for one in result.classes] == ["short"]


def test_changes_are_counted_by_the_class_that_the_champion_gave() -> None:
    texts = ["tiny", "gigantic", "enormous", "wee", "huge!"]
    result = replayed([[request(text) for text in texts]], 100, candidate=abstaining)
    assert result.classes == (ClassChange("long", 3, 3, "(no label)"), ClassChange("short", 2, 0, None))
    assert (result.changed, result.labelled) == (3, 2)


def test_a_record_that_a_worker_could_not_read_is_passed_over_and_counted() -> None:
    result = replayed([[request("a"), b"\xff", None, request("b"), b"{}"]], 100)
    assert (result.requests, result.unreadable) == (2, 3)


def test_requests_are_read_by_the_shape_that_the_workers_read_them_by() -> None:
    values = [b'{"ticket": {"body": "gigantic"}}', b'{"ticket": {"body": "wee"}}', request("not here")]
    result = replayed([values], 100, text_path="ticket.body")
    assert {one.label: one.requests for one in result.classes} == {"long": 1, "short": 1}
    assert result.unreadable == 1


@pytest.mark.parametrize("values", [[], [[], []]])
def test_without_a_topic_or_requests_there_is_nothing_to_replay(values: list[list[bytes]]) -> None:
    assert replayed(values, 100) == Replayed(requests=0, changed=0, unreadable=0, classes=())


def test_more_requests_than_a_chunk_are_answered_chunk_by_chunk() -> None:
    sizes = []

    def measuring(texts: Sequence[bytes]) -> list[str | None]:
        sizes.append(len(texts))
        return by_length(texts)

    total = 2 * CHUNK + 7
    assert replayed([[request("a")] * total], total, candidate=measuring).requests == total
    assert sum(sizes) == total
    assert max(sizes) <= CHUNK


def test_what_answering_raises_ends_the_replay() -> None:
    def broken(texts: Sequence[bytes]) -> list[str | None]:
        raise FloatingPointError("told to fail")

    with pytest.raises(FloatingPointError):
        replayed([[request("a")]], 1, candidate=broken)


def test_a_topic_that_gives_nothing_is_an_error_and_not_a_wait_for_ever() -> None:
    with pytest.raises(BrokerUnavailableError, match=r"For 60 s nothing more came of requests\[0\]"):
        replayed([[request("a")]], 1, silent=True)


@given(st.dictionaries(st.integers(0, 9), st.integers(0, 1000), min_size=1), st.integers(0, 5000))
def test_the_tails_hold_what_was_asked_for_or_all_there_is(lengths: dict[int, int], count: int) -> None:
    taken = tails(lengths, count)
    assert taken.keys() == lengths.keys()
    assert all(0 <= taken[partition] <= length for partition, length in lengths.items())
    assert sum(taken.values()) == min(count, sum(lengths.values()))
    # Nobody who has more to give gives less than another gives, but for the remainder of the division.
    fullest = max(taken.values())
    assert all(taken[partition] >= fullest - 1 for partition, length in lengths.items() if length > taken[partition])
