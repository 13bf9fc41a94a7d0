"""Publishing requests: each is checked before it leaves, and known by where it was appended."""

from __future__ import annotations

import asyncio
import itertools
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import msgspec

from headrace.client.arguments import answer_timeout, header_pairs, key_bytes, request_of
from headrace.client.errors import ClientClosedError
from headrace.kafka.interface import Appended, Headers, KafkaError, Outgoing, Producer, ProducerDeadError
from headrace_schemas.headers import TIMEOUT_MS, content_type
from headrace_schemas.paths import Encode, RequestShape, compile_writer
from headrace_schemas.records import ClassifyRequest

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
