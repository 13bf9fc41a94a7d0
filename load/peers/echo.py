"""No model, and an answer as long as headrace's: what a client can do at all.

python -m load.peers.echo aiokafka     # getmany and send_batch
python -m load.peers.echo confluent    # confluent-kafka, which is librdkafka
"""

from __future__ import annotations

import asyncio
import signal
import sys
from threading import Event

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.producer.message_accumulator import BatchBuilder

from load.peers.running import from_environment, run_until_terminated

# As long as an answer of headrace to a text without an id: 150 bytes.
REST = (
    b',"label":"Business","score":0.9876543,"version":"20260101T000000Z-0123456789ab","padding":"' + b"." * 42 + b'"}'
)


def answer(value: bytes) -> bytes:
    """The id, which the harness writes behind the text, and the rest."""
    return b'{"id":' + value[value.rindex(b'"id":') + 5 : -1] + REST


async def by_aiokafka() -> None:
    """Fetch, answer, and wait for all acknowledgements before the next fetch; the client commits every five seconds."""
    settings = from_environment()
    producer = AIOKafkaProducer(bootstrap_servers=settings.bootstrap, enable_idempotence=True, max_batch_size=1 << 18)
    consumer = AIOKafkaConsumer(
        settings.requests,
        bootstrap_servers=settings.bootstrap,
        group_id=settings.group,
        auto_offset_reset="earliest",
    )
    async with producer, consumer:
        while True:
            chunks = await consumer.getmany(timeout_ms=1000, max_records=4000)
            sent: list[asyncio.Future[object]] = []
            for partition, records in chunks.items():
                batch: BatchBuilder = producer.create_batch()
                for record in records:
                    while batch.append(key=record.key, value=answer(record.value), timestamp=None) is None:
                        sent.append(await producer.send_batch(batch, settings.results, partition=partition.partition))
                        batch = producer.create_batch()
                sent.append(await producer.send_batch(batch, settings.results, partition=partition.partition))
            if sent:
                await asyncio.gather(*sent)


def by_confluent() -> None:
    """Consume by the thousand and produce; librdkafka batches, acknowledges and commits behind."""
    from confluent_kafka import Consumer, KafkaException, Producer  # noqa: PLC0415 - the other echo does without it

    settings = from_environment()
    ended = Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    consumer = Consumer(
        {
            "bootstrap.servers": settings.bootstrap,
            "group.id": settings.group,
            "auto.offset.reset": "earliest",
            # After a full queue librdkafka waits a second by default before it fetches again.
            "fetch.queue.backoff.ms": 5,
        }
    )
    producer = Producer(
        {
            "bootstrap.servers": settings.bootstrap,
            "enable.idempotence": True,
            "linger.ms": 5,
            "queue.buffering.max.messages": 1_000_000,
        }
    )
    consumer.subscribe([settings.requests])
    while not ended.is_set():
        for message in consumer.consume(num_messages=1000, timeout=0.1):
            if message.error() is not None:
                raise KafkaException(message.error())
            while True:
                try:
                    producer.produce(settings.results, answer(message.value()), key=message.key())
                    break
                except BufferError:
                    producer.poll(0.05)
        producer.poll(0)
    producer.flush()
    consumer.close()


if __name__ == "__main__":
    if sys.argv[1] == "confluent":
        by_confluent()
    else:
        run_until_terminated(by_aiokafka)
