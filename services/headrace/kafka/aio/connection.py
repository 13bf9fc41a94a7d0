"""One aiokafka producer with what it lacks: a bound on every wait, and an end that leaves no zombie behind."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError as TheirKafkaError
from aiokafka.errors import OutOfOrderSequenceNumber

from headrace.kafka.aio.connecting import connect_limit_s, connecting
from headrace.kafka.aio.errors import translated
from headrace.kafka.aio.pacing import pace
from headrace.kafka.errors import BrokerUnavailableError, NotAuthorizedError, ProducerDeadError, UnsupportedError
from headrace.kafka.interface import Outgoing, TopicPartition
from headrace.kafka.settings import KafkaSettings, client_options

log = logging.getLogger(__name__)

# aiokafka lets an idempotent producer's sequence numbers run past 2**31 - 1 to -2**31, where Kafka goes on at 0.
SEQUENCE_LIMIT = 2**30


class NotAppendedError(BrokerUnavailableError):
    """The broker refused a batch only because it had refused the one before: the same records can be sent anew."""


class CutOffError(Exception):
    """A delivery whose connection ended: what became of it is unknown."""


class ProducerConnection:
    """An aiokafka producer from start to end. ``spent`` says that no new batch may be given to it."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
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
        pace(self.inner.client)

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
            # Connected but without an id: the broker refused InitProducerId, or kept closing the connection over it.
            if self._settings.idempotent and isinstance(error, Exception) and self.inner.client.cluster.brokers():
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
        doing = f"Producing {count} records to {partition.topic}[{partition.partition}]"
        limit_s = self._settings.delivery_timeout_ms / 1000
        self._sent[partition] += count
        self.spent = self.spent or (self._settings.idempotent and self._sent[partition] >= SEQUENCE_LIMIT)
        try:
            async with asyncio.timeout(limit_s):
                offset = await self._outcome(await accepting)
        except TimeoutError as error:
            # An idempotent producer would go on trying for ever, behind its user's back.
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
            raise self._judged(error, partition, doing) from error
        if offset < 0:
            # The broker knows the batch from an earlier try and has forgotten where it put it.
            raise BrokerUnavailableError(f"{doing} went well, but the broker does not say where. Read it from the log.")
        return offset

    async def close(self) -> None:
        """Let what is under way end, within the stop timeout, then end."""
        try:
            async with asyncio.timeout(self._settings.stop_timeout_ms / 1000):
                await self.inner.stop()
        except Exception as error:  # noqa: BLE001 - whatever stands in the way, the end must come
            log.info("Stopping a producer did not end well (%r); discarding it", error)
            await self.discard()
        self._end()

    async def discard(self) -> None:
        """End without waiting for anything: sockets closed, batches not tried again."""
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

        The future waited for is our own: cancelling aiokafka's would upset its books.
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

    def _judged(self, error: Exception, partition: TopicPartition, doing: str) -> Exception:
        """Return the error as ours; one that breaks the sequence of batches ends this connection's use."""
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
