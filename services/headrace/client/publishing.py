"""Publishing requests: each is checked before it leaves, and known by where it was appended."""

from __future__ import annotations

import asyncio
import itertools
import zlib
from collections.abc import Callable, Iterable, Iterator

import msgspec

from headrace.kafka.errors import ProducerDeadError
from headrace.kafka.interface import Appended, Headers, Outgoing, Producer
from headrace_schemas.errors import BadHeaderError
from headrace_schemas.headers import MAX_TIMEOUT_MS, TIMEOUT_MS, content_type
from headrace_schemas.paths import RequestShape
from headrace_schemas.records import ClassifyRequest
from headrace_schemas.writing import Encode, compile_writer

BATCH = 2000
"""Records handed to the producer at once by :meth:`Publisher.publish_many`."""


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
    :func:`~headrace_schemas.writing.compile_writer` know other shapes. ``id`` is for a bare text;
    ``timeout`` is in seconds, after which the request is answered `expired`.
    Raises a WireError for what a worker would refuse.
    """
    if isinstance(request, str):
        request = ClassifyRequest(text=request, id=id)
    elif id is not None:
        raise TypeError("id is for a text; this record brings its own")
    value = encode(request, content_type(headers)) if isinstance(request, ClassifyRequest) else request
    if timeout is not None:
        milliseconds = round(timeout * 1000)
        if not 1 <= milliseconds <= MAX_TIMEOUT_MS:
            allowed = f"from 0.001 to {MAX_TIMEOUT_MS / 1000:g} seconds are allowed"
            raise BadHeaderError(f"header {TIMEOUT_MS}", f"{timeout} s is out of range: {allowed}")
        headers = (*headers, (TIMEOUT_MS, b"%d" % milliseconds))
    return Outgoing(value, key.encode() if isinstance(key, str) else key, headers)


class Publisher:
    """Publishes to one topic. A producer that is dead is replaced for the next call; the failed one has raised."""

    def __init__(self, new_producer: Callable[[], Producer], topic: str) -> None:
        self._new_producer = new_producer
        self._topic = topic
        self._producer: Producer | None = None
        self._starting = asyncio.Lock()

    async def start(self) -> None:
        """Connect. Raises a KafkaError when that fails."""
        producer = self._new_producer()
        await producer.start()
        self._producer = producer

    async def stop(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.stop()

    async def publish(self, record: Outgoing, partition: int | None = None) -> Published:
        """Append ``record``. Raises a KafkaError; then it is unknown whether it was appended."""
        producer = await self._alive()
        try:
            appended = await producer.send(self._topic, record, partition=partition)
        except ProducerDeadError:
            await self.stop()
            raise
        return _published(record, appended)

    async def publish_many(self, records: Iterable[Outgoing], partition: int | None = None) -> list[Published]:
        """Append ``records`` by :data:`BATCH`, to ``partition`` or by key, keyless ones spread; in the order given.

        Raises a KafkaError; then some prefix of them was appended, and perhaps more of the batch behind it.
        """
        published: list[Published] = []
        for batch in _batches(records):
            producer = await self._alive()
            try:
                places = await producer.send_many(self._topic, batch, partition=partition)
            except ProducerDeadError:
                await self.stop()
                raise
            published.extend(map(_published, batch, places))
        return published

    async def partitions(self) -> frozenset[int]:
        """The partition numbers of the topic, empty when there is none. Raises a KafkaError."""
        return await (await self._alive()).partitions_of(self._topic)

    async def _alive(self) -> Producer:
        async with self._starting:
            if self._producer is None:
                await self.start()
        assert self._producer is not None  # noqa: S101 - start sets it or raises
        return self._producer


def _published(record: Outgoing, appended: Appended) -> Published:
    return Published(appended.partition, appended.offset, zlib.crc32(record.value or b""))


def _batches(records: Iterable[Outgoing]) -> Iterator[list[Outgoing]]:
    walk = iter(records)
    while batch := list(itertools.islice(walk, BATCH)):
        yield batch
