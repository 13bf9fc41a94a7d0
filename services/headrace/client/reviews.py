"""Reviews: labels that people and teachers give to requests that were answered without a label.

A person's review of a request outranks a teacher's, whichever came later. A labeller publishes no review behind a
person's that it knows of; readers skip one that came at the same moment.

:class:`ReviewReader` reads them as they come, :class:`ReviewAwaiter` waits for those of single requests, and
:class:`ReviewPublisher` publishes them.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Sequence

from headrace.client.arguments import ClientClosedError
from headrace.core.clock import Clock
from headrace.core.fields import Start
from headrace.kafka.interface import (
    Cluster,
    Consumer,
    KafkaError,
    NotAuthorizedError,
    OffsetOutOfRangeError,
    Outgoing,
    Record,
    TopicPartition,
    UnknownTopicError,
)
from headrace.kafka.range_reader import offsets_of
from headrace.process.logs import event
from headrace_schemas.codec import decode_review, encode_review
from headrace_schemas.errors import WireError
from headrace_schemas.headers import content_type
from headrace_schemas.records import ClassifyResult, Review
from headrace_schemas.topics import review_key, reviewed_place

CHUNK = 1000
LOOK_S = 30.0
"""How often a reader looks for added partitions."""
RETRY_S = 0.2
MOST_EARLY = 10_000
"""How many reviews are kept for calls to come: a review may come before the acknowledgement of its request is read."""
MOST_BY_PEOPLE = 100_000
"""How many of the last places that people reviewed a reader remembers."""
PERSON = "person"

Place = tuple[int, int]


class ReviewedResult(ClassifyResult, frozen=True, kw_only=True, omit_defaults=True):
    """An answer without a label, with the label and score of the ``review`` that followed it."""

    review: Review


def reviewed(result: ClassifyResult, review: Review) -> ReviewedResult:
    """``result`` with the label of its review."""
    fields = {name: getattr(result, name) for name in ClassifyResult.__struct_fields__}
    return ReviewedResult(**{**fields, "label": review.label, "score": review.score, "review": review})


class ReviewReader:
    """Reads ``topic`` from ``start`` on: the reviews of answers on ``results``.

    It skips records that are no reviews, and a teacher's review behind a person's.
    """

    def __init__(self, consumer: Consumer, topic: str, *, results: str, start: Start = "latest", clock: Clock) -> None:
        self._consumer = consumer
        self._topic = topic
        self._results = results
        self._start = start
        self._clock = clock
        self._positions: dict[TopicPartition, int] = {}
        self._due_s = 0.0
        self._by_people: OrderedDict[Place, None] = OrderedDict()
        self.taken_back: list[Place] = []
        """The places whose reviews of before were taken back, in what was read last."""

    async def start(self) -> None:
        """Find the positions. Raises a KafkaError whose message says so when the topic or the right is missing."""
        try:
            await self._consumer.start()
            if not await self._consumer.partitions_of(self._topic):
                raise UnknownTopicError(
                    f"There is no topic {self._topic}, so no review can be waited for. `headrace topics apply` "
                    "creates it."
                )
            await self._look_for_partitions(self._start)
        except NotAuthorizedError as error:
            raise NotAuthorizedError(
                f"This user may not read {self._topic}, so no review can be waited for: `headrace topics acl --role "
                f"reader` prints the commands that give the right. ({error})"
            ) from error

    async def stop(self) -> None:
        await self._consumer.stop()

    async def read(self, *, timeout_s: float) -> list[Review]:
        """Wait up to ``timeout_s`` for reviews, without those that were taken back already. Raises a KafkaError."""
        if self._clock.monotonic() >= self._due_s:
            await self._look_for_partitions("earliest")
        try:
            chunks = await self._consumer.fetch(max_records=CHUNK, timeout_s=timeout_s)
        except OffsetOutOfRangeError:
            # Retention overtook the reader, or the topic was made anew: read what is left.
            self._positions.clear()
            await self._look_for_partitions("earliest")
            return []
        except KafkaError:
            # Fetch again what the failed fetch had taken.
            self._seek()
            raise
        found: list[Review] = []
        self.taken_back = []
        for name, records in chunks.items():
            for record in records:
                if (place := taken_back(record, self._results)) is not None:
                    self._by_people.pop(place, None)
                    self.taken_back.append(place)
                    found = [one for one in found if (one.partition, one.offset) != place]
                elif (review := self._review(record)) is not None:
                    found.append(review)
            self._positions[name] = records[-1].offset + 1
        return found

    async def _look_for_partitions(self, start: Start) -> None:
        self._due_s = self._clock.monotonic() + LOOK_S
        there = [TopicPartition(self._topic, number) for number in await self._consumer.partitions_of(self._topic)]
        fresh = [name for name in there if name not in self._positions]
        if not fresh:
            return
        self._positions |= await offsets_of(self._consumer, fresh, start)
        self._consumer.assign(self._positions)
        self._seek()

    def _seek(self) -> None:
        for name, position in self._positions.items():
            self._consumer.seek(name, position)

    def _review(self, record: Record) -> Review | None:
        try:
            review = decode_review(record.value, content_type(record.headers))
        except WireError as error:
            event("review.unreadable", level="warning", offset=record.offset, error=str(error))
            return None
        return review if review.results == self._results and self._holds(review) else None

    def _holds(self, review: Review) -> bool:
        """Whether ``review``, the latest one, holds for its request."""
        place = (review.partition, review.offset)
        if review.origin != PERSON:
            return place not in self._by_people
        self._by_people[place] = None
        if len(self._by_people) > MOST_BY_PEOPLE:
            self._by_people.popitem(last=False)
        return True


class ReviewAwaiter:
    """One reader at the end of the reviews, shared by all calls that wait. Start it before requests are published."""

    def __init__(self, reader: ReviewReader, clock: Clock) -> None:
        self._reader = reader
        self._clock = clock
        self._waiting: dict[Place, list[asyncio.Future[Review]]] = {}
        self._early: OrderedDict[Place, Review] = OrderedDict()
        self._running: asyncio.Task[None] | None = None
        self._ended: Exception | None = None

    @property
    def alive(self) -> bool:
        """Whether it was started and still reads."""
        return self._running is not None and self._ended is None

    async def start(self) -> None:
        """Begin at the topic's present end. Raises a KafkaError."""
        await self._reader.start()
        self._running = asyncio.create_task(self._run(), name="reviews")

    async def stop(self) -> None:
        """Stop reading. Calls that still wait raise ClientClosedError."""
        self._end(ClientClosedError("The client was closed before the review came."))
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])
        await self._reader.stop()

    async def wait(self, place: Place) -> Review:
        """The next review of the request at ``place``, or the last one that came. Raises the error that ended
        reading.
        """
        if self._ended is not None:
            raise self._ended
        if (early := self._early.get(place)) is not None:
            return early
        review: asyncio.Future[Review] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(place, []).append(review)
        try:
            return await review
        finally:
            waiting = self._waiting.get(place, [])
            if review in waiting:
                waiting.remove(review)
            if not waiting:
                self._waiting.pop(place, None)

    async def _run(self) -> None:
        try:
            while True:
                try:
                    reviews = await self._reader.read(timeout_s=1.0)
                except KafkaError as error:
                    if not error.retriable:
                        raise
                    event("reviews.retry", level="debug", error=str(error))
                    await self._clock.sleep(RETRY_S)
                    continue
                for place in self._reader.taken_back:
                    self._early.pop(place, None)
                self._take(reviews)
        except Exception as error:  # noqa: BLE001 - whatever it is, who waits has to hear of it
            event("reviews.ended", level="error", error=repr(error))
            self._end(error)

    def _take(self, reviews: Sequence[Review]) -> None:
        # Of several reviews of one request the last holds, so waiting calls get theirs after all are read.
        last = {(review.partition, review.offset): review for review in reviews}
        for place, review in last.items():
            self._early[place] = review
            self._early.move_to_end(place)
            for waiting in self._waiting.get(place, ()):
                if not waiting.done():
                    waiting.set_result(review)
        while len(self._early) > MOST_EARLY:
            self._early.popitem(last=False)

    def _end(self, reason: Exception) -> None:
        if self._ended is None:
            self._ended = reason
            for waiting in [one for of in self._waiting.values() for one in of]:
                if not waiting.done():
                    waiting.set_exception(reason)


def taken_back(record: Record, results: str) -> Place | None:
    """The place in ``results`` whose reviews ``record`` takes back; None for any other record."""
    if record.value is not None or record.discarded is not None:
        return None
    found = reviewed_place(record.key)
    return None if found is None or found[0] != results else found[1:]


class ReviewPublisher:
    """Publishes reviews to ``topic`` of ``cluster``, each to the partition number of its answer. It connects at first
    use.
    """

    def __init__(self, cluster: Cluster, topic: str) -> None:
        self._producer = cluster.producer()
        self._topic = topic
        self._started = False

    async def stop(self) -> None:
        if self._started:
            await self._producer.stop()

    async def publish(self, reviews: Sequence[Review]) -> None:
        """Publish them and wait for the acknowledgement. Raises a KafkaError; an UnknownTopicError names the topic."""
        await self._send(
            (review.partition, Outgoing(encode_review(review), review_key(*_of(review)))) for review in reviews
        )

    async def take_back(self, results: str, places: Sequence[Place]) -> None:
        """Take back the reviews of the answers at ``places`` of ``results``; who has one already keeps it. Raises as
        above.
        """
        await self._send((place[0], Outgoing(None, review_key(results, *place))) for place in places)

    async def _send(self, records: Iterable[tuple[int, Outgoing]]) -> None:
        if not self._started:
            await self._producer.start()
            self._started = True
        partitions = len(await self._producer.partitions_of(self._topic))
        if not partitions:
            raise UnknownTopicError(f"There is no topic {self._topic}; `headrace topics apply` creates it.")
        by_partition: dict[int, list[Outgoing]] = {}
        for partition, record in records:
            # A reviews topic that did not grow with the results topic has fewer partitions.
            by_partition.setdefault(partition % partitions, []).append(record)
        for partition, of_partition in by_partition.items():
            await self._producer.send_many(self._topic, of_partition, partition=partition)


def _of(review: Review) -> tuple[str, int, int]:
    return review.results, review.partition, review.offset
