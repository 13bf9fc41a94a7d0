"""Publishing requests, and awaiting their answers. An answer is found by its request's place; there is no correlation
id.
"""

from __future__ import annotations

import asyncio
import itertools
import zlib
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager

import msgspec

from headrace.client.arguments import (
    AnswerLogError,
    AnswersEndedError,
    ClientClosedError,
    LostAnswerError,
    answer_timeout,
    header_pairs,
    key_bytes,
    request_of,
)
from headrace.client.reading import Answer, AnswerReader
from headrace.core.answer_log import Hole
from headrace.core.clock import Clock
from headrace.core.errors import note_once
from headrace.core.text import quantity
from headrace.kafka.interface import Appended, Headers, KafkaError, Outgoing, Producer, ProducerDeadError, passes
from headrace.kafka.retry import retried
from headrace.process.logs import event
from headrace_schemas.headers import EXPLAIN, TIMEOUT_MS, content_type
from headrace_schemas.paths import Encode, RequestShape, compile_writer
from headrace_schemas.records import ClassifyRequest, ClassifyResult

BATCH = 2000
"""How many records are handed to the producer at once."""


_OWN = compile_writer(RequestShape())


class Published(msgspec.Struct, frozen=True):
    """The place of an acknowledged request. ``crc`` is the CRC-32 of its value, which its answer repeats."""

    partition: int
    offset: int
    crc: int


def prepare(
    request: str | bytes | ClassifyRequest,
    *,
    key: str | bytes | None = None,
    id: str | None = None,  # noqa: A002 - the field's name on the wire
    timeout: float | None = None,
    headers: Headers = (),
    explain: bool = False,
    encode: Encode = _OWN,
) -> Outgoing:
    """Make the record to publish. Bytes go as they are: a record of your own, with its content type in ``headers``.

    ``encode`` writes any other request, by default as headrace's own record: :meth:`Client.prepare` and
    :func:`~headrace_schemas.paths.compile_writer` know other shapes. ``id`` is for a bare text. After ``timeout``
    seconds the request is answered `expired`. ``explain`` asks for the answer's ``explanation``, which a worker leaves
    out if its setting worker.explain is off. Raises a WireError for a request that a worker would refuse, and an
    ArgumentError for a wrong argument.
    """
    given = request_of(request, id)
    headers = header_pairs(headers)
    if timeout is not None:
        headers = (*headers, (TIMEOUT_MS, b"%d" % round(answer_timeout(timeout) * 1000)))
    if explain:
        headers = (*headers, (EXPLAIN, b"1"))
    value = encode(given, content_type(headers)) if isinstance(given, ClassifyRequest) else given
    return Outgoing(value, key_bytes(key), headers)


class Publisher:
    """Publishes to one topic. When a producer dies, the call raises, and the next call gets a new producer."""

    def __init__(self, new_producer: Callable[[], Producer], topic: str) -> None:
        self._new_producer = new_producer
        self.topic = topic
        self._producer: Producer | None = None
        self._starting = asyncio.Lock()
        self._closed = False

    async def start(self) -> None:
        """Connect. Raises a KafkaError when that fails."""
        self._closed = False
        await self._alive()

    async def stop(self) -> None:
        """Disconnect. Calls of :meth:`publish` that are under way, and later ones, raise ClientClosedError."""
        self._closed = True
        await self._drop(self._producer)

    async def publish(self, record: Outgoing, partition: int | None = None) -> Published:
        """Append ``record``. Raises a KafkaError; then it is unknown whether it was appended."""
        async with self._producing() as producer:
            return _published(record, await producer.send(self.topic, record, partition=partition))

    async def publish_batch(self, records: Sequence[Outgoing], partition: int | None = None) -> list[Published]:
        """Append ``records`` in the order given: to ``partition``, or by key, with keyless records spread.

        Raises a KafkaError; then it is unknown which of them were appended.
        """
        async with self._producing() as producer:
            places = await producer.send_many(self.topic, records, partition=partition)
        return list(map(_published, records, places))

    async def publish_to(self, partition: int, records: Sequence[Outgoing]) -> list[int]:
        """Append ``records`` to ``partition`` and return their offsets. Raises as :meth:`publish_batch` does."""
        async with self._producing() as producer:
            return await producer.send_in_order(self.topic, partition, records)

    async def partitions(self) -> frozenset[int]:
        """The partition numbers of the topic, empty when there is none. Raises a KafkaError."""
        return await (await self._alive()).partitions_of(self.topic)

    @asynccontextmanager
    async def _producing(self) -> AsyncIterator[Producer]:
        producer = await self._alive()
        try:
            yield producer
        except ProducerDeadError:
            await self._drop(producer)
            raise

    async def _alive(self) -> Producer:
        async with self._starting:
            self._check_open()
            if self._producer is not None and self._producer.dead:
                await self._drop(self._producer)
            if (producer := self._producer) is None:
                producer = self._new_producer()
                await producer.start()
                if self._closed:
                    await producer.stop()
                    self._check_open()
                self._producer = producer
        return producer

    def _check_open(self) -> None:
        if self._closed:
            raise ClientClosedError("The client was closed while it published: what was not acknowledged may be lost.")

    async def _drop(self, producer: Producer | None) -> None:
        """Stop ``producer``, unless it was replaced or stopped already."""
        if producer is not None and producer is self._producer:
            self._producer = None
            await producer.stop()


def _published(record: Outgoing, appended: Appended) -> Published:
    return Published(appended.partition, appended.offset, zlib.crc32(record.value or b""))


class Sent:
    """How far publishing many requests has come: ``published`` requests are acknowledged, in the order given."""

    def __init__(self) -> None:
        self.published: list[Published] = []
        self._under_way = 0

    @contextmanager
    def under_way(self, size: int) -> Iterator[None]:
        """Wraps the sending of the next ``size`` requests. If the block fails, nobody knows which of them were
        published.
        """
        self._under_way = size
        yield
        self._under_way = 0

    def known(self) -> str:
        """What is known of the requests and how to go on, in words for people."""
        done, unknown = len(self.published), self._under_way
        first = quantity(done, "request was", "requests were")
        if not unknown:
            return f"The first {first} published, nothing behind them was sent. Go on behind them."
        return (
            f"The first {first} published, of the next {unknown:,} it is unknown. Go on behind the "
            f"first {done:,}, and some may be published twice, or behind {done + unknown:,}, and some may be missing."
        )


ONE_UNKNOWN = "Whether the request was published is unknown; publishing it again may publish it twice."


@contextmanager
def one_under_way() -> Iterator[None]:
    """Wraps the sending of one request. An error that ends the wait for its acknowledgement gets :data:`ONE_UNKNOWN` as
    a note.

    A refusal of Kafka (an absent topic, a missing right, a record that is too large) gets none.
    """
    try:
        yield
    except (KafkaError, ClientClosedError, asyncio.CancelledError) as error:
        if not isinstance(error, KafkaError) or passes(error):
            note_once(error, ONE_UNKNOWN)
        raise


def batches(records: Iterable[Outgoing]) -> Iterator[list[Outgoing]]:
    """Split ``records`` into lists of :data:`BATCH`, as they are needed."""
    walk = iter(records)
    while batch := list(itertools.islice(walk, BATCH)):
        yield batch


RETRY_S = 0.2
MOST_EARLY = 100_000
"""How many answers are kept while a request is being published: its answer can come before its acknowledgement."""
MOST_EARLY_HOLES = 1000

_Place = tuple[int, int]


class Awaiter:
    """One reader at the end of the answer log, shared by all calls that wait. :meth:`start` it before publishing.

    ``requests`` is the requests topic, for messages.
    """

    def __init__(self, reader: AnswerReader, requests: str, clock: Clock) -> None:
        self._reader = reader
        self._requests = requests
        self._clock = clock
        self._highest: Mapping[int, int] = {}
        self._early_holes: deque[tuple[int, Hole]] = deque(maxlen=MOST_EARLY_HOLES)
        self._waiting: dict[_Place, tuple[int, asyncio.Future[ClassifyResult]]] = {}
        self._early: OrderedDict[_Place, ClassifyResult] = OrderedDict()
        self._publishing = 0
        self._running: asyncio.Task[None] | None = None
        self._ended: Exception | None = None

    @property
    def alive(self) -> bool:
        """Whether it was started and still reads."""
        return self._running is not None and self._ended is None

    @property
    def positions(self) -> dict[int, int]:
        """How far each results partition was read."""
        return {partition: place.position for partition, place in self._reader.positions.items()}

    async def start(self) -> None:
        """Begin at the log's present end. Raises a KafkaError, and the reason that :meth:`stop` got meanwhile."""
        await self._reader.start()
        if self._ended is not None:
            await self._reader.stop()
            raise self._ended
        self._running = asyncio.create_task(self._run(), name="awaiter")

    async def stop(self, reason: Exception) -> None:
        """Stop reading. Calls that still wait get ``reason``, or the error that ended reading before."""
        self.end(reason)
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])
        await self._reader.stop()

    @contextmanager
    def publishing(self) -> Iterator[Mapping[int, int]]:
        """Wraps publishing a request and calling :meth:`expect` with the mapping that this yields."""
        self._publishing += 1
        try:
            yield self._highest
        finally:
            self._publishing -= 1
            if not self._publishing:
                self._early.clear()
                self._early_holes.clear()

    def expect(self, published: Published, before: Mapping[int, int]) -> asyncio.Future[ClassifyResult]:
        """A future of the answer. It fails with LostAnswerError, AnswerLogError or the error that ended the reader.

        ``before`` has the highest request of each partition that was answered before this request was published. In a
        log that only grows this request lies behind it.
        """
        place = (published.partition, published.offset)
        answer: asyncio.Future[ClassifyResult] = asyncio.get_running_loop().create_future()
        highest = before.get(published.partition, -1)
        if published.offset <= highest:
            self.end(
                AnswerLogError(
                    f"The request was published as {published.offset} of {self._requests}[{published.partition}], "
                    f"where {highest} was answered before: the topic was cut or made anew. The next call reads the "
                    "answers anew. A worker that knew the old topic stops, and says what to do."
                )
            )
        if self._ended is not None:
            answer.set_exception(self._ended)
            return answer
        self._waiting[place] = (published.crc, answer)
        answer.add_done_callback(lambda _: self._waiting.pop(place, None))
        if (early := self._early.pop(place, None)) is not None:
            self._resolve(place, early)
        for partition, hole in self._early_holes:
            if partition == published.partition and hole.first <= published.offset <= hole.last:
                self._lose(partition, hole)
        return answer

    async def _run(self) -> None:
        try:
            while True:
                answers = await retried(
                    self._reader.read, sleep=self._clock.sleep, wait_s=RETRY_S, tell=self._tries_again
                )
                for answer in answers:
                    self._take(answer)
                if answers:
                    # A new dict each time, because a call that publishes keeps the old one.
                    self._highest = {
                        **self._highest,
                        **{answer.partition: answer.result.offset for answer in answers},
                    }
        except (KafkaError, AnswerLogError) as error:
            self.end(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, who waits has to hear of it
            event("answers.ended", level="error", error=repr(error))
            ended = AnswersEndedError(f"Reading the answers ended by {error!r}; the next call reads anew.")
            ended.__cause__ = error
            self.end(ended)

    def _tries_again(self, error: KafkaError, _: float) -> None:
        event("answers.retry", level="debug", error=str(error))

    def end(self, reason: Exception) -> None:
        """Fail all waiting and later calls with ``reason``. The first reason stands."""
        if self._ended is None:
            self._ended = reason
            for _, waiting in list(self._waiting.values()):
                if not waiting.done():
                    waiting.set_exception(reason)

    def _take(self, answer: Answer) -> None:
        if answer.hole is not None:
            self._lose(answer.partition, answer.hole)
            if self._publishing:
                self._early_holes.append((answer.partition, answer.hole))
        place = (answer.partition, answer.result.offset)
        if place in self._waiting:
            self._resolve(place, answer.result)
        elif self._publishing:
            self._early[place] = answer.result
            if len(self._early) > MOST_EARLY:
                self._early.popitem(last=False)

    def _resolve(self, place: _Place, result: ClassifyResult) -> None:
        crc, waiting = self._waiting[place]
        if waiting.done():
            return
        if result.crc == crc:
            waiting.set_result(result)
        else:
            waiting.set_exception(
                AnswerLogError(
                    f"The answer to request {place[1]} of {self._requests}[{place[0]}] is to another text: the topic "
                    "was cut or made anew, and that of the results was not."
                )
            )

    def _lose(self, partition: int, hole: Hole) -> None:
        for (number, offset), (_, waiting) in list(self._waiting.items()):
            if number == partition and hole.first <= offset <= hole.last and not waiting.done():
                waiting.set_exception(
                    LostAnswerError(
                        f"Request {offset} of partition {partition} was passed over: later ones were answered."
                    )
                )
