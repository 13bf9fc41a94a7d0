"""Publishing requests, and awaiting their answers by where each request was appended, with no correlation id."""

from __future__ import annotations

import asyncio
import itertools
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

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
from headrace.kafka.interface import Appended, Headers, KafkaError, Outgoing, Producer, ProducerDeadError
from headrace.process.logs import event
from headrace_schemas.headers import TIMEOUT_MS, content_type
from headrace_schemas.paths import Encode, RequestShape, compile_writer
from headrace_schemas.records import ClassifyRequest, ClassifyResult

BATCH = 2000
"""Records handed to the producer at once, of many."""


_OWN = compile_writer(RequestShape())


class Published(msgspec.Struct, frozen=True):
    """Where the acknowledged request is. ``crc`` is the CRC-32 of its value, which its answer repeats."""

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
    encode: Encode = _OWN,
) -> Outgoing:
    """Make the record to publish. Bytes go as they are: a record of your own, with its content type in ``headers``.

    Any other request is written by ``encode``, by default as our own record: :meth:`Client.prepare` and
    :func:`~headrace_schemas.paths.compile_writer` know other shapes. ``id`` is for a bare text;
    ``timeout`` is in seconds, after which the request is answered `expired`.
    Raises a WireError for what a worker would refuse, and an ArgumentError for what is no request, key or header.
    """
    given = request_of(request, id)
    headers = header_pairs(headers)
    if timeout is not None:
        headers = (*headers, (TIMEOUT_MS, b"%d" % round(answer_timeout(timeout) * 1000)))
    value = encode(given, content_type(headers)) if isinstance(given, ClassifyRequest) else given
    return Outgoing(value, key_bytes(key), headers)


class Publisher:
    """Publishes to one topic. A producer that is dead is replaced for the next call; the failed one has raised."""

    def __init__(self, new_producer: Callable[[], Producer], topic: str) -> None:
        self._new_producer = new_producer
        self._topic = topic
        self._producer: Producer | None = None
        self._starting = asyncio.Lock()
        self._closed = False

    async def start(self) -> None:
        """Connect. Raises a KafkaError when that fails."""
        self._closed = False
        await self._alive()

    async def stop(self) -> None:
        """Disconnect; who publishes meanwhile or later gets ClientClosedError and connects to nothing."""
        self._closed = True
        await self._drop(self._producer)

    async def publish(self, record: Outgoing, partition: int | None = None) -> Published:
        """Append ``record``. Raises a KafkaError; then it is unknown whether it was appended."""
        producer = await self._alive()
        try:
            appended = await producer.send(self._topic, record, partition=partition)
        except ProducerDeadError:
            await self._drop(producer)
            raise
        return _published(record, appended)

    async def publish_batch(self, records: Sequence[Outgoing], partition: int | None = None) -> list[Published]:
        """Append ``records``, to ``partition`` or by key, keyless ones spread; in the order given.

        Raises a KafkaError; then it is unknown which of them were appended.
        """
        producer = await self._alive()
        try:
            places = await producer.send_many(self._topic, records, partition=partition)
        except ProducerDeadError:
            await self._drop(producer)
            raise
        return list(map(_published, records, places))

    async def partitions(self) -> frozenset[int]:
        """The partition numbers of the topic, empty when there is none. Raises a KafkaError."""
        return await (await self._alive()).partitions_of(self._topic)

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
        """Let go of ``producer``, unless another one took its place or it was let go of already."""
        if producer is not None and producer is self._producer:
            self._producer = None
            await producer.stop()


def _published(record: Outgoing, appended: Appended) -> Published:
    return Published(appended.partition, appended.offset, zlib.crc32(record.value or b""))


@contextmanager
def counted(published: Sequence[Published]) -> Iterator[None]:
    """Around the publishing of many: whatever is raised has a note that says how many were published."""
    try:
        yield
    except Exception as error:
        unknown = isinstance(error, KafkaError | ClientClosedError)
        behind = f"of the next {BATCH:,} it is unknown" if unknown else "nothing behind them was sent"
        error.add_note(f"The first {len(published):,} requests were published, {behind}.")
        raise


def batches(records: Iterable[Outgoing]) -> Iterator[list[Outgoing]]:
    """``records`` by :data:`BATCH`, taken as they are needed."""
    walk = iter(records)
    while batch := list(itertools.islice(walk, BATCH)):
        yield batch


RETRY_S = 0.2
MOST_EARLY = 100_000
"""Answers kept while a publish is under way: an answer can be faster than the acknowledgement of its request."""

_Place = tuple[int, int]


class Awaiter:
    """One reader at the end of the answer log for everybody who waits. :meth:`start` it before publishing."""

    def __init__(self, reader: AnswerReader, clock: Clock) -> None:
        self._reader = reader
        self._clock = clock
        self._waiting: dict[_Place, tuple[int, asyncio.Future[ClassifyResult]]] = {}
        self._early: OrderedDict[_Place, ClassifyResult] = OrderedDict()
        self._publishing = 0
        self._running: asyncio.Task[None] | None = None
        self._ended: Exception | None = None

    @property
    def alive(self) -> bool:
        """Whether it was started and still reads."""
        return self._running is not None and self._ended is None

    async def start(self) -> None:
        """Begin at the log's present end. Raises a KafkaError, and what :meth:`stop` was given meanwhile."""
        await self._reader.start()
        if self._ended is not None:
            await self._reader.stop()
            raise self._ended
        self._running = asyncio.create_task(self._run(), name="awaiter")

    async def stop(self, reason: Exception) -> None:
        """Stop reading; who still waits gets ``reason``, or what ended the reading before."""
        self._end(reason)
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])
        await self._reader.stop()

    @contextmanager
    def publishing(self) -> Iterator[None]:
        """Around a publish and the :meth:`expect` of its answer."""
        self._publishing += 1
        try:
            yield
        finally:
            self._publishing -= 1
            if not self._publishing:
                self._early.clear()

    def expect(self, published: Published) -> asyncio.Future[ClassifyResult]:
        """The answer to come; it fails with LostAnswerError, AnswerLogError or what ended the reader."""
        place = (published.partition, published.offset)
        answer: asyncio.Future[ClassifyResult] = asyncio.get_running_loop().create_future()
        if self._ended is not None:
            answer.set_exception(self._ended)
            return answer
        self._waiting[place] = (published.crc, answer)
        answer.add_done_callback(lambda _: self._waiting.pop(place, None))
        if (early := self._early.pop(place, None)) is not None:
            self._resolve(place, early)
        return answer

    async def _run(self) -> None:
        try:
            while True:
                try:
                    answers = await self._reader.read()
                except KafkaError as error:
                    if not error.retriable:
                        raise
                    event("answers.retry", level="debug", error=str(error))
                    await self._clock.sleep(RETRY_S)
                    continue
                for answer in answers:
                    self._take(answer)
        except (KafkaError, AnswerLogError) as error:
            self._end(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, who waits has to hear of it
            event("answers.ended", level="error", error=repr(error))
            ended = AnswersEndedError(f"Reading the answers ended by {error!r}; the next call reads anew.")
            ended.__cause__ = error
            self._end(ended)

    def _end(self, reason: Exception) -> None:
        """Tell ``reason`` to everybody who waits, and to who comes later; the first one stands."""
        if self._ended is None:
            self._ended = reason
            for _, waiting in list(self._waiting.values()):
                if not waiting.done():
                    waiting.set_exception(reason)

    def _take(self, answer: Answer) -> None:
        if answer.hole is not None:
            self._lose(answer.partition, answer.hole)
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
                    f"The answer to request {place[1]} of partition {place[0]} is to another text: the requests topic "
                    "was cut or made anew, and the results topic was not."
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
