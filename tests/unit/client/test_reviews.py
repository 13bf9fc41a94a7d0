"""Waiting for the review of an answer without a label."""

from __future__ import annotations

import asyncio
import zlib

import msgspec
import pytest

from headrace.client import ArgumentError, Client, ReviewedResult
from headrace.client.reviews import ReviewAwaiter, ReviewPublisher, ReviewReader
from headrace.kafka.interface import NotAuthorizedError, Outgoing, TopicPartition, TopicSpec, UnknownTopicError
from headrace_schemas.codec import encode_result
from headrace_schemas.records import ClassifyResult, Review, Status
from tests.support.memory_kafka import MemoryCluster
from tests.support.memory_kafka.consumer import MemoryConsumer
from tests.support.turned_loop import TurnedClock, run_turned

REQUESTS, RESULTS, REVIEWS = "classify.requests", "classify.results", "classify.reviews"


def review(
    offset: int, label: str = "card", *, results: str = RESULTS, partition: int = 0, origin: str = "person"
) -> Review:
    return Review(
        results=results,
        partition=partition,
        offset=offset,
        label=label,
        origin=origin,
        reviewed_at_ms=1,
        score=0.75,
        by="ann",
    )


class Site:
    """Topics, a client, and a worker that answers everything, with ``label`` or without."""

    def __init__(self, label: str | None = None, *, reviews: bool = True) -> None:
        self.clock = TurnedClock()
        self.cluster = MemoryCluster(self.clock)
        self.label = label
        for topic in (REQUESTS, RESULTS, *([REVIEWS] if reviews else [])):
            self.cluster.create_topic(TopicSpec(name=topic, partitions=1))
        self.publisher = ReviewPublisher(self.cluster, REVIEWS)
        self._answered = 0
        self.took_s = 0.0

    def client(self) -> Client:
        return Client(self.cluster, clock=self.clock)

    @property
    def requests(self) -> int:
        return len(self.cluster.log(TopicPartition(REQUESTS, 0)).records)

    async def answer(self) -> None:
        while True:
            for record in self.cluster.log(TopicPartition(REQUESTS, 0)).records[self._answered :]:
                result = ClassifyResult(
                    offset=record.offset,
                    after=record.offset - 1,
                    crc=zlib.crc32(record.value or b""),
                    status=Status.OK,
                    version="v1",
                    label=self.label,
                    score=0.2,
                )
                log = self.cluster.log(TopicPartition(RESULTS, 0))
                log.append_batch([Outgoing(encode_result(result))], self.clock.now_ms())
                self._answered += 1
            await self.clock.sleep(0.1)


async def classified(site: Site, reviews: list[tuple[float, Review]], review_timeout: float = 60.0):
    """What the call gives, with ``reviews`` published so many seconds after it began."""

    async def publish() -> None:
        for after, one in reviews:
            await site.clock.sleep(after)
            await site.publisher.publish([one])

    async with site.client() as client:
        answering, publishing = asyncio.create_task(site.answer()), asyncio.create_task(publish())
        try:
            return await client.classify("where is my card", timeout=30, review_timeout=review_timeout)
        finally:
            site.took_s = site.clock.monotonic()
            answering.cancel()
            publishing.cancel()
            await site.publisher.stop()


def test_an_answer_without_a_label_is_followed_by_its_review() -> None:
    others = [(1.0, review(5)), (1.0, review(0, partition=3)), (1.0, review(0, results="other")), (1.0, review(0))]
    result = run_turned(classified(Site(), others))
    assert isinstance(result, ReviewedResult)
    assert (result.label, result.score, result.review.by, result.version) == ("card", 0.75, "ann", "v1")


def test_without_a_review_in_time_the_answer_is_given_as_it_is() -> None:
    site = Site()
    result = run_turned(classified(site, [(90.0, review(0))]))
    assert (result.status, result.label, result.score) == (Status.OK, None, 0.2)
    assert 60 <= site.took_s < 90


def test_an_answer_with_a_label_waits_for_none() -> None:
    site = Site("refund")
    assert run_turned(classified(site, [])).label == "refund"
    assert site.took_s < 5


def test_a_review_may_come_before_anybody_waits_for_it() -> None:
    # Published before the worker looks again, so before the answer is there.
    result = run_turned(classified(Site(), [(0.0, review(0))]))
    assert result.label == "card"


def test_without_the_topic_nothing_is_published_and_the_words_say_what_to_do() -> None:
    site = Site(reviews=False)
    with pytest.raises(UnknownTopicError, match="topics apply"):
        run_turned(classified(site, []))
    assert site.requests == 0


def test_without_the_right_nothing_is_published_and_the_words_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site()
    end_offsets = MemoryConsumer.end_offsets

    async def refuse(self, partitions):
        if any(name.topic == REVIEWS for name in partitions):
            raise NotAuthorizedError("no right to Read")
        return await end_offsets(self, partitions)

    monkeypatch.setattr(MemoryConsumer, "end_offsets", refuse)
    with pytest.raises(NotAuthorizedError, match=r"may not read classify\.reviews.*--role reader"):
        run_turned(classified(site, []))
    assert site.requests == 0


@pytest.mark.parametrize("wrong", [-1, float("nan"), "soon"])
def test_a_review_timeout_is_seconds(wrong: object) -> None:
    with pytest.raises(ArgumentError, match="review_timeout"):
        run_turned(classified(Site(), [], wrong))


def test_rubbish_among_reviews_is_passed_over_and_a_new_partition_read() -> None:
    async def read() -> list[Review]:
        clock = TurnedClock()
        cluster = MemoryCluster(clock)
        cluster.create_topic(TopicSpec(name=REVIEWS, partitions=1))
        reader, publisher = (
            ReviewReader(cluster.consumer(), REVIEWS, results=RESULTS, clock=clock),
            ReviewPublisher(cluster, REVIEWS),
        )
        await reader.start()
        cluster.log(TopicPartition(REVIEWS, 0)).append_batch([Outgoing(b"{rubbish", b"k")], 0)
        await publisher.publish([review(1)])
        found = await reader.read(timeout_s=1)
        await cluster.admin().add_partitions(REVIEWS, 2)
        await publisher.publish([review(2, partition=1)])
        await clock.sleep(31)
        for _ in range(3):
            found += await reader.read(timeout_s=1)
        await publisher.stop()
        await reader.stop()
        return found

    assert [one.offset for one in run_turned(read())] == [1, 2]


def test_a_teachers_review_behind_a_persons_is_passed_over_and_a_persons_behind_a_teachers_is_read() -> None:
    async def read() -> list[Review]:
        clock = TurnedClock()
        cluster = MemoryCluster(clock)
        cluster.create_topic(TopicSpec(name=REVIEWS, partitions=1))
        reader = ReviewReader(cluster.consumer(), REVIEWS, results=RESULTS, clock=clock)
        publisher = ReviewPublisher(cluster, REVIEWS)
        await reader.start()
        await publisher.publish([review(0, "true"), review(0, "wrong", origin="teacher")])
        await publisher.publish([review(1, "first", origin="teacher"), review(1, "second", origin="teacher")])
        await publisher.publish([review(1, "true"), review(1, "wrong", origin="teacher"), review(1, "corrected")])
        found: list[Review] = []
        while len(found) < 5:
            found += await reader.read(timeout_s=1)
        await publisher.stop()
        await reader.stop()
        return found

    read_labels = [(one.offset, one.label) for one in run_turned(read())]
    assert read_labels == [(0, "true"), (1, "first"), (1, "second"), (1, "true"), (1, "corrected")]


def test_who_waits_gets_a_persons_review_also_where_the_teachers_came_with_it() -> None:
    async def waited() -> str:
        clock = TurnedClock()
        cluster = MemoryCluster(clock)
        cluster.create_topic(TopicSpec(name=REVIEWS, partitions=1))
        awaiter = ReviewAwaiter(ReviewReader(cluster.consumer(), REVIEWS, results=RESULTS, clock=clock), clock)
        publisher = ReviewPublisher(cluster, REVIEWS)
        await awaiter.start()
        waiting = asyncio.create_task(awaiter.wait((0, 0)))
        await clock.sleep(0.1)
        await publisher.publish([review(0, "guessed", origin="teacher"), review(0, "true")])
        found = await waiting
        await publisher.publish([review(0, "wrong", origin="teacher")])
        await clock.sleep(5)
        assert (await awaiter.wait((0, 0))).label == "true"
        await awaiter.stop()
        await publisher.stop()
        return found.label

    assert run_turned(waited()) == "true"


def test_a_review_that_was_taken_back_is_read_no_more_and_a_teachers_holds_behind_it() -> None:
    async def read() -> tuple[list[Review], list[Review]]:
        clock = TurnedClock()
        cluster = MemoryCluster(clock)
        cluster.create_topic(TopicSpec(name=REVIEWS, partitions=1))
        reader = ReviewReader(cluster.consumer(), REVIEWS, results=RESULTS, clock=clock)
        publisher = ReviewPublisher(cluster, REVIEWS)
        await reader.start()
        await publisher.publish([review(0, "mistaken"), review(1, "true"), review(2, "mistaken")])
        await publisher.take_back(RESULTS, [(0, 0), (0, 2)])
        # Of another results topic, which is none of ours.
        await publisher.take_back("others", [(0, 1)])
        await publisher.publish([review(2, "better")])
        first = await reader.read(timeout_s=1)
        assert reader.taken_back == [(0, 0), (0, 2)]
        await publisher.publish([review(0, "guessed", origin="teacher"), review(1, "wrong", origin="teacher")])
        second = await reader.read(timeout_s=1)
        assert reader.taken_back == []
        await publisher.stop()
        await reader.stop()
        return first, second

    first, second = run_turned(read())
    assert [(one.offset, one.label) for one in first] == [(1, "true"), (2, "better")]
    assert [(one.offset, one.label) for one in second] == [(0, "guessed")]


def test_who_comes_after_a_review_was_taken_back_waits_for_the_next_one() -> None:
    async def waited() -> str:
        clock = TurnedClock()
        cluster = MemoryCluster(clock)
        cluster.create_topic(TopicSpec(name=REVIEWS, partitions=1))
        awaiter = ReviewAwaiter(ReviewReader(cluster.consumer(), REVIEWS, results=RESULTS, clock=clock), clock)
        publisher = ReviewPublisher(cluster, REVIEWS)
        await awaiter.start()
        await publisher.publish([review(0, "mistaken")])
        await clock.sleep(5)
        await publisher.take_back(RESULTS, [(0, 0)])
        await clock.sleep(5)
        waiting = asyncio.create_task(awaiter.wait((0, 0)))
        await clock.sleep(5)
        assert not waiting.done()
        await publisher.publish([review(0, "true")])
        found = await waiting
        await awaiter.stop()
        await publisher.stop()
        return found.label

    assert run_turned(waited()) == "true"


STRANGE = (
    b"",
    b"{",
    b"[]",
    b"\xff",
    b'{"results": "classify.results", "partition": 0}',
    *(
        msgspec.json.encode({"results": RESULTS, "partition": partition, "offset": offset, "label": "card",
                             "origin": "person", "reviewed_at_ms": 1})
        for partition, offset in ((-1, 0), (0, -1), (10**30, 0), (0, 2**63), (2**31, 2**62), ("0", "0"), (None, 0))
    ),
    msgspec.json.encode({"results": "other/../results", "partition": 0, "offset": 0, "label": "card",
                         "origin": "person", "reviewed_at_ms": 1}),
    msgspec.json.encode({"results": RESULTS, "partition": 0, "offset": 0, "label": None, "origin": "person",
                         "reviewed_at_ms": 1}),
)  # fmt: skip


def test_reviews_of_places_that_nobody_asked_about_answer_nobody_and_stop_no_reader(caplog) -> None:
    """Of foreign topics, partitions and offsets, and what is no review at all."""

    async def found():
        site = Site()
        client = site.client()
        log = site.cluster.log(TopicPartition(REVIEWS, 0))
        async with client:
            answering = asyncio.create_task(site.answer())
            asked = asyncio.create_task(client.classify("where is my card", timeout=30, review_timeout=60))
            await site.clock.sleep(1.0)
            for value in STRANGE:
                log.append_batch([Outgoing(value, b"\xff\x00")], 0)
            await site.clock.sleep(5.0)
            assert not asked.done()
            await site.publisher.publish([review(0)])
            result = await asked
            answering.cancel()
            await site.publisher.stop()
        return result

    assert run_turned(found()).label == "card"
    assert not [one for one in caplog.records if one.exc_info]
