"""The producer over aiokafka. It sends whole batches, nine to fourteen times as fast as record by record.

:class:`ProducerConnection` adds what aiokafka lacks: a bound on every wait, and an end that leaves no zombie behind.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import struct
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError as TheirKafkaError
from aiokafka.errors import OutOfOrderSequenceNumber
from aiokafka.partitioner import murmur2

from headrace.core.errors import raise_failed
from headrace.core.text import quantity
from headrace.kafka.aio.connection import (
    connect_limit_s,
    connecting,
    make_lasting,
    partitions_of,
    translated,
    translating,
)
from headrace.kafka.interface import (
    Appended,
    BrokerUnavailableError,
    KafkaError,
    NotAuthorizedError,
    Outgoing,
    ProducerDeadError,
    RecordTooLargeError,
    TopicPartition,
    UnknownTopicError,
    UnsupportedError,
)
from headrace.kafka.packed_records import PackedBatch, PackedRecords
from headrace.kafka.retry import retried
from headrace.kafka.settings import KafkaSettings, client_options

log = logging.getLogger(__name__)

# aiokafka lets an idempotent producer's sequence numbers run past 2**31 - 1 to -2**31, where Kafka goes on at 0.
SEQUENCE_LIMIT = 2**30


class NotAppendedError(BrokerUnavailableError):
    """The broker refused a batch only because it had refused the batch before it: the same records can be sent
    again.
    """


class CutOffError(Exception):
    """The connection ended during a delivery, so nobody knows whether the records were appended."""


_BEFORE_CRC, _BEHIND_CRC = struct.Struct(">qiibI"), struct.Struct(">hiqqqhii")


class PackedBuilder:
    """Stands for aiokafka's BatchBuilder where the records are packed already. It is closed, and its time is now."""

    def __init__(self, packed: PackedBatch) -> None:
        self._packed = packed
        self._time_ms = int(time.time() * 1000)
        self._state = (-1, -1, 0)
        self._built: bytes | None = None

    def record_count(self) -> int:
        return len(self._packed)

    def size(self) -> int:
        return _BEFORE_CRC.size + _BEHIND_CRC.size + len(self._packed.data)

    def closed(self) -> bool:
        return True

    def close(self) -> None:
        """It is."""

    def append(self, **record: Any) -> None:
        """Take no record: aiokafka makes another batch."""

    def _set_producer_state(self, producer: int, epoch: int, first_sequence: int) -> None:
        """Called before the first try, and not before others: a batch keeps its sequence numbers."""
        self._state = producer, epoch, first_sequence

    def _build(self) -> bytes:
        if self._built is None:
            count = len(self._packed)
            rest = _BEHIND_CRC.pack(0, count - 1, self._time_ms, self._time_ms, *self._state, count) + self._packed.data
            # The length counts what stands behind it: the leader's epoch, the format, the checksum and the rest.
            self._built = _BEFORE_CRC.pack(0, len(rest) + 9, -1, 2, self._packed.crc32c(rest)) + rest
        return self._built


class ProducerConnection:
    """One aiokafka producer from start to end. ``spent``: no new batch may be given to it.

    ``gave_ids`` says that the cluster gave an id to an idempotent producer before.
    """

    def __init__(self, settings: KafkaSettings, *, gave_ids: bool = False) -> None:
        self._settings = settings
        self._gave_ids = gave_ids
        self.spent = False
        self._sent: Counter[TopicPartition] = Counter()
        self._broken: set[TopicPartition] = set()  # a batch of theirs was refused, so the next sequence number is wrong
        self._under_way: set[asyncio.Future[int]] = set()
        self.inner = AIOKafkaProducer(
            **client_options(settings),
            acks="all",
            enable_idempotence=settings.idempotent,
            max_batch_size=settings.max_batch_bytes,
            max_request_size=settings.max_request_size,
        )
        make_lasting(self.inner.client)

    async def start(self) -> None:
        """Connect. Raises UnsupportedError when the broker can't give an idempotent producer its id."""
        try:
            async with connecting(self._settings, f"Connecting a producer to Kafka at {self._settings.bootstrap}"):
                async with asyncio.timeout(connect_limit_s(self._settings)):
                    await self.inner.start()
        except BaseException as error:
            await self.discard()
            if isinstance(error, NotAuthorizedError):
                raise
            # Connected but without an id: the broker refused InitProducerId, or closed the connection each time. Where
            # ids were given before, too few nodes answer.
            connected = isinstance(error, Exception) and self.inner.client.cluster.brokers()
            if self._settings.idempotent and connected and not self._gave_ids:
                raise UnsupportedError(
                    f"The broker at {self._settings.bootstrap} gives this producer no id ({error}), so it can't be "
                    "idempotent there. Set kafka.idempotent to false for such a broker (the embedded one is)."
                ) from error
            raise

    async def append(self, partition: TopicPartition, batch: Any) -> int:
        """Send a BatchBuilder's records and return the offset of the first, once all replicas in sync have them."""
        accepting = self.inner.send_batch(batch, partition.topic, partition=partition.partition)
        return await self._deliver(partition, batch.record_count(), accepting)

    async def append_one(self, partition: TopicPartition, record: Outgoing) -> int:
        """Send one record, in a batch with others that are sent at the same time, and return its offset."""
        accepting = self.inner.send(
            partition.topic,
            record.value,
            record.key,
            partition.partition,
            record.timestamp_ms,
            list(record.headers),
        )
        return await self._deliver(partition, 1, accepting)

    async def _deliver(self, partition: TopicPartition, count: int, accepting: Awaitable[asyncio.Future[Any]]) -> int:
        doing = f"Producing {quantity(count, 'record')} to {partition.topic}[{partition.partition}]"
        limit_s = self._settings.delivery_timeout_ms / 1000
        self._sent[partition] += count
        self.spent = self.spent or (self._settings.idempotent and self._sent[partition] >= SEQUENCE_LIMIT)
        try:
            async with asyncio.timeout(limit_s):
                offset = await self._outcome(await accepting)
        except TimeoutError as error:
            # An idempotent producer would go on trying for ever, unseen.
            await self.discard()
            raise BrokerUnavailableError(
                f"{doing} had no answer in {limit_s:g} s of Kafka at {self._settings.bootstrap}; some may have been "
                "appended. The producer connects anew."
            ) from error
        except CutOffError as error:
            raise BrokerUnavailableError(
                f"{doing} was cut off when the connection to Kafka at {self._settings.bootstrap} ended; it may have "
                "been appended."
            ) from error
        except TheirKafkaError as error:
            raise self._as_ours(error, partition, doing) from error
        if offset < 0:
            # The broker knows the batch from an earlier try and has forgotten where it put it.
            raise BrokerUnavailableError(f"{doing} went well, but the broker does not say where. Read it from the log.")
        return offset

    async def close(self) -> None:
        """Finish what is under way, within the stop timeout, then end."""
        try:
            async with asyncio.timeout(self._settings.stop_timeout_ms / 1000):
                await self.inner.stop()
        except Exception as error:  # noqa: BLE001 - whatever stands in the way, the end must come
            log.info("Stopping a producer did not end well (%r); discarding it", error)
            await self.discard()
        self._end()

    async def discard(self) -> None:
        """End at once: close the sockets and retry no batch."""
        self._end()
        self.inner._closed = True  # noqa: SLF001 - aiokafka's own stop() would flush, for ever if it has to
        task = self.inner._sender.sender_task  # noqa: SLF001
        if task is not None:
            task.cancel()
        try:
            async with asyncio.timeout(self._settings.stop_timeout_ms / 1000):
                await self.inner.client.close()
                if task is not None:
                    await asyncio.wait([task])
        except Exception as error:  # noqa: BLE001 - whatever stands in the way, the end must come
            log.info("A discarded producer's connections did not close in time (%r)", error)

    async def _outcome(self, delivery: asyncio.Future[Any]) -> int:
        """Return the offset that ``delivery`` ends with. Raises CutOffError when the connection ends before.

        It waits for a future of its own: cancelling aiokafka's would confuse aiokafka.
        """
        outcome: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def tell(delivered: asyncio.Future[Any]) -> None:
            failure = CutOffError() if delivered.cancelled() else delivered.exception()
            if outcome.done():
                return
            if failure is not None:
                outcome.set_exception(failure)
            else:
                outcome.set_result(int(delivered.result().offset))

        delivery.add_done_callback(tell)
        self._under_way.add(outcome)
        try:
            return await outcome
        finally:
            self._under_way.discard(outcome)

    def _end(self) -> None:
        self.spent = True
        for outcome in self._under_way:
            if not outcome.done():
                outcome.set_exception(CutOffError())

    def _as_ours(self, error: Exception, partition: TopicPartition, doing: str) -> Exception:
        """Return the error as one of ours. An error that breaks the sequence of batches makes this connection spent."""
        ours = translated(error, doing, needs="Write", topic=partition.topic)
        task = self.inner._sender.sender_task  # noqa: SLF001 - its end is the producer's end
        if isinstance(error, OutOfOrderSequenceNumber) and partition in self._broken:
            ours = NotAppendedError(str(ours))
        elif task is None or task.done():
            ours = ProducerDeadError(f"{doing} failed, and the producer with it: {error}")
        if self._settings.idempotent:
            self._broken.add(partition)
        self.spent = self.spent or self._settings.idempotent or isinstance(ours, ProducerDeadError)
        return ours


def partition_of_key(key: bytes, partitions: int) -> int:
    """The partition, in ``range(partitions)``, to which Kafka's Java client sends ``key``: murmur2 without the sign
    bit.
    """
    return int(murmur2(key) & 0x7FFFFFFF) % partitions


Delivery = Callable[[ProducerConnection], Awaitable[int]]

MOST_TRIES = 10  # of a record, when others beside it break the idempotent sequence again and again


def _only_refused(error: KafkaError) -> bool:
    return isinstance(error, NotAppendedError)


class AioProducer:
    """Fulfils :class:`headrace.kafka.interface.Producer`.

    It makes a new connection when the idempotent sequence of the old one can't go on. After a ProducerDeadError the
    producer can't be used again, and only the log shows which of its records were appended.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._connection: ProducerConnection | None = None
        self._connecting = asyncio.Lock()
        self._retired: set[asyncio.Task[None]] = set()
        self._turn = itertools.count(random.randrange(1024))  # noqa: S311 - producers begin at different partitions
        self._counts: dict[str, int] = {}
        self._dead: str | None = None

    @property
    def dead(self) -> bool:
        return self._dead is not None

    async def start(self) -> None:
        await self._connected()

    async def stop(self) -> None:
        """Stop within the stop timeout, even if no broker answers."""
        self._dead = "it was stopped"
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()
        if self._retired:
            await asyncio.wait(self._retired)

    async def send(self, topic: str, record: Outgoing, *, partition: int | None = None) -> Appended:
        if partition is None:
            partition = self._partition(record, await self._partition_count(topic))
        elif partition not in range(await self._partition_count(topic, partition)):
            raise UnknownTopicError(f"There is no partition {partition} of topic {topic}.")
        if record.key is None and record.value is None:
            return await self.send_batch(topic, partition, [record])  # aiokafka takes such a record in a batch only
        try:
            where = TopicPartition(topic, partition)

            def deliver(connection: ProducerConnection) -> Awaitable[int]:
                return connection.append_one(where, record)

            return Appended(partition, await self._sent_anew(deliver, deliver))
        except RecordTooLargeError:
            # The cause may be another record of the same batch, or the batch's own size. Sending the record alone shows
            # it.
            return await self.send_batch(topic, partition, [record])

    async def send_many(
        self, topic: str, records: Sequence[Outgoing], *, partition: int | None = None
    ) -> list[Appended]:
        if partition is not None:
            return [Appended(partition, offset) for offset in await self.send_in_order(topic, partition, records)]
        count = await self._partition_count(topic) if records else 0
        places: dict[int, list[int]] = {}
        for place, record in enumerate(records):
            places.setdefault(self._partition(record, count), []).append(place)
        # Wait for all of them, so that nothing is still being sent when an error is raised.
        outcomes = await asyncio.gather(
            *(self._send_places(topic, number, records, of_it) for number, of_it in places.items()),
            return_exceptions=True,
        )
        raise_failed(outcomes)
        appended: dict[int, Appended] = {}
        for outcome in outcomes:
            assert not isinstance(outcome, BaseException)  # noqa: S101 - it would have been raised
            appended |= outcome
        return [appended[place] for place in range(len(records))]

    async def send_batch(self, topic: str, partition: int, records: Sequence[Outgoing]) -> Appended:
        if not records:
            raise ValueError(f"send_batch to {topic}[{partition}] was given no records.")
        return Appended(partition, (await self.send_in_order(topic, partition, records))[0])

    async def send_in_order(self, topic: str, partition: int, records: Sequence[Outgoing]) -> list[int]:
        if partition not in range(await self._partition_count(topic, partition)):
            raise UnknownTopicError(f"There is no partition {partition} of topic {topic}.")
        offsets: list[int] = []
        for some in records.batches if isinstance(records, PackedRecords) else (records,):
            begun = len(offsets)
            while (at := len(offsets) - begun) < len(some):
                batch, taken = self._fill(await self._connected(), some, at)
                of_batch = some if taken == len(some) else some[at : at + taken]
                offsets += await self._append(TopicPartition(topic, partition), batch, of_batch, begun + at)
        return offsets

    async def partitions_of(self, topic: str) -> frozenset[int]:
        connection = await self._connected()
        with translating(f"Asking for the partitions of {topic}"):
            return await partitions_of(connection.inner.client, topic)

    async def _send_places(
        self, topic: str, partition: int, records: Sequence[Outgoing], places: list[int]
    ) -> dict[int, Appended]:
        try:
            offsets = await self.send_in_order(topic, partition, [records[place] for place in places])
        except RecordTooLargeError as error:
            raise RecordTooLargeError(str(error), places[error.index]) from error
        return {place: Appended(partition, offset) for place, offset in zip(places, offsets, strict=True)}

    async def _append(self, where: TopicPartition, batch: Any, records: Sequence[Outgoing], at: int) -> list[int]:
        """Append one batch and return each record's offset.

        A batch that is too large for the topic is halved until the record that is too large stands alone.
        """
        try:
            first = await self._sent_anew(
                lambda connection: connection.append(where, batch),
                lambda connection: connection.append(where, self._fill(connection, records, 0)[0]),
            )
        except RecordTooLargeError as error:
            if len(records) == 1:
                raise RecordTooLargeError(f"Record {at} is too large for its topic. {error}", at) from error
        else:
            return list(range(first, first + len(records)))
        half = len(records) // 2
        offsets: list[int] = []
        for some in (records[:half], records[half:]):
            batch, _ = self._fill(await self._connected(), some, 0)
            offsets += await self._append(where, batch, some, at + len(offsets))
        return offsets

    async def _sent_anew(self, first: Delivery, again: Delivery) -> int:
        """Deliver by ``first``. If other records broke the connection's sequence of batches, deliver by ``again``."""
        deliveries = itertools.chain((first,), itertools.repeat(again))

        async def deliver() -> int:
            return await next(deliveries)(await self._connected())

        try:
            return await retried(deliver, sleep=asyncio.sleep, wait_s=0.0, tries=MOST_TRIES, mends=_only_refused)
        except ProducerDeadError as error:
            self._dead = str(error)
            raise

    def _fill(self, connection: ProducerConnection, records: Sequence[Outgoing], start: int) -> tuple[Any, int]:
        """Return a closed batch and the number of its records: as many from ``start`` on as fit, at least one."""
        batch, taken = (
            (PackedBuilder(records), len(records))
            if isinstance(records, PackedBatch)
            else self._built(connection, records, start)
        )
        if taken == 1 and batch.size() > self._settings.max_request_size:
            raise RecordTooLargeError(
                f"Record {start} takes {batch.size()} bytes; kafka.max_request_size allows "
                f"{self._settings.max_request_size}. Send less, or raise that setting and the topic's.",
                start,
            )
        return batch, taken

    @staticmethod
    def _built(connection: ProducerConnection, records: Sequence[Outgoing], start: int) -> tuple[Any, int]:
        batch = connection.inner.create_batch()
        # Past the batch's own append, which costs as much again as the builder under it.
        append = batch._builder.append  # noqa: SLF001
        taken = 0
        for record in itertools.islice(records, start, None):
            headers = list(record.headers) if record.headers else []
            if append(taken, record.timestamp_ms, record.key, record.value, headers) is None:
                break
            taken += 1
        batch._relative_offset = taken  # noqa: SLF001
        batch.close()
        return batch, taken

    def _partition(self, record: Outgoing, count: int) -> int:
        return next(self._turn) % count if record.key is None else partition_of_key(record.key, count)

    async def _partition_count(self, topic: str, partition: int | None = None) -> int:
        """How many partitions ``topic`` has. The cluster is asked again when ``partition`` is not known."""
        known = self._counts.get(topic)
        if known is None or (partition is not None and partition >= known):
            known = self._counts[topic] = len(await self.partitions_of(topic))
        if not known:
            del self._counts[topic]
            raise UnknownTopicError(
                f"There is no topic {topic} to write to. Create it first, for example by `headrace topics apply`."
            )
        return known

    async def _connected(self) -> ProducerConnection:
        """Return a connection that takes batches; make a new one if the old one is spent."""
        if self._dead is not None:
            raise ProducerDeadError(f"The producer can't be used any more: {self._dead}.")
        if self._connection is not None and not self._connection.spent:
            return self._connection
        async with self._connecting:
            if self._connection is None or self._connection.spent:
                spent = self._connection
                connection = ProducerConnection(self._settings, gave_ids=spent is not None)
                await connection.start()
                self._connection = connection
                if spent is not None:
                    # Batches of other partitions may still be under way there.
                    task = asyncio.create_task(spent.close())
                    self._retired.add(task)
                    task.add_done_callback(self._retired.discard)
            return self._connection
