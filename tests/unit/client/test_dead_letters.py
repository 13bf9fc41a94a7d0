import asyncio
from collections.abc import Sequence

import pytest

from headrace.client.dead_letters import Found, read_dead_letters, read_replayed, replay
from headrace.client.publishing import Publisher
from headrace.kafka.interface import Outgoing, TopicPartition, TopicSpec, UnknownTopicError
from headrace_schemas.dead_letters import dead_letter_headers
from headrace_schemas.headers import read_attempt
from headrace_schemas.records import DeadLetter
from tests.support.memory_kafka import MemoryCluster
from tests.support.turned_loop import TurnedClock, run_turned

REQUESTS, LETTERS = "classify.requests", "classify.dead-letters"


def letter(offset: int, *, partition: int = 0, attempt: int = 1, value: bytes | None = b"\xff\x00") -> DeadLetter:
    return DeadLetter(
        topic=REQUESTS,
        partition=partition,
        offset=offset,
        timestamp_ms=5,
        stage="decode",
        error="bad-bytes",
        message="no JSON",
        attempt=attempt,
        key=b"k",
        value=value,
        headers=(("tenant", b"a"),),
    )


def cluster_with(*letters: DeadLetter) -> MemoryCluster:
    cluster = MemoryCluster(TurnedClock())
    for name in (REQUESTS, LETTERS):
        cluster.create_topic(TopicSpec(name=name, partitions=2))
    for one in letters:
        log = cluster.log(TopicPartition(LETTERS, one.partition))
        log.append_batch([Outgoing(one.value, one.key, dead_letter_headers(one))], 9)
    return cluster


async def collected(cluster: MemoryCluster, places: Sequence[tuple[int, int]] = ()) -> list[Found]:
    return [found async for found in read_dead_letters(cluster, LETTERS, places=places)]


def test_dead_letters_are_read_whole_with_their_own_places() -> None:
    async def main() -> None:
        letters = [letter(7), letter(9), letter(3, partition=1)]
        found = await collected(cluster_with(*letters))
        assert [(one.partition, one.offset) for one in found] == [(0, 0), (0, 1), (1, 0)]
        assert [one.letter for one in found] == letters
        assert found[0].timestamp_ms == 9

    run_turned(asyncio.wait_for(main(), 60))


def test_places_choose_and_what_is_no_dead_letter_is_passed_over() -> None:
    async def main() -> None:
        cluster = cluster_with(letter(7), letter(9), letter(3, partition=1))
        cluster.log(TopicPartition(LETTERS, 0)).append_batch([Outgoing(b"stray")], 0)
        assert [one.letter.offset for one in await collected(cluster, [(0, 1)])] == [9]
        assert len(await collected(cluster)) == 3

    run_turned(asyncio.wait_for(main(), 60))


def test_a_gap_at_the_end_does_not_hold_up_the_reader() -> None:
    async def main() -> None:
        cluster = cluster_with(letter(7))
        cluster.log(TopicPartition(LETTERS, 0)).add_gap()
        assert len(await collected(cluster)) == 1

    run_turned(asyncio.wait_for(main(), 60))


def test_an_absent_topic_is_named() -> None:
    async def main() -> None:
        cluster = cluster_with()
        cluster.delete_topic(LETTERS)
        with pytest.raises(UnknownTopicError, match=LETTERS):
            await collected(cluster)

    run_turned(asyncio.wait_for(main(), 60))


def test_a_replay_is_the_request_as_it_was_with_its_attempt_raised() -> None:
    async def main() -> None:
        cluster = cluster_with(letter(7, partition=1, attempt=2), letter(8, value=None))
        publisher, marks = Publisher(cluster.producer, REQUESTS), Publisher(cluster.producer, LETTERS)
        for found in await collected(cluster):
            await replay(publisher, marks, found, found.letter.partition)
        record = cluster.log(TopicPartition(REQUESTS, 1)).records[0]
        assert (record.key, record.value, record.headers[0]) == (b"k", b"\xff\x00", ("tenant", b"a"))
        assert read_attempt(record.headers) == 3
        assert cluster.log(TopicPartition(REQUESTS, 0)).records[0].value is None
        replayed = await read_replayed(cluster, LETTERS)
        assert replayed.places == {(0, 0), (1, 0)}
        assert replayed.origins == {f"{REQUESTS}[0]@8", f"{REQUESTS}[1]@7"}
        assert len(await collected(cluster)) == 2

    run_turned(asyncio.wait_for(main(), 60))


def test_what_is_dead_lettered_while_a_run_reads_is_left_to_the_next_run() -> None:
    async def main() -> None:
        cluster = cluster_with(letter(0), letter(1))

        class FailsAgain:
            """The request is answered so fast that its new dead letter is there before the old one is fetched."""

            async def point(self, member: str, name: str) -> None:
                if name == "fetch.before":
                    again = letter(10, attempt=2)
                    log = cluster.log(TopicPartition(LETTERS, 0))
                    log.append_batch([Outgoing(again.value, again.key, dead_letter_headers(again))], 9)

        cluster.faults = FailsAgain()
        assert [found.letter.offset for found in await collected(cluster)] == [0, 1]

    run_turned(asyncio.wait_for(main(), 60))
