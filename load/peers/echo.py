"""No model: aiokafka's getmany and send_batch and an answer as long as headrace's. What this client can do at all."""

from __future__ import annotations

import asyncio

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


async def main() -> None:
    """One round a fetch: all answers are acknowledged before the next, the client commits every five seconds."""
    settings = from_environment()
    consumer = AIOKafkaConsumer(
        settings.requests,
        bootstrap_servers=settings.bootstrap,
        group_id=settings.group,
        auto_offset_reset="earliest",
    )
    producer = AIOKafkaProducer(bootstrap_servers=settings.bootstrap, enable_idempotence=True, max_batch_size=1 << 18)
    await producer.start()
    await consumer.start()
    try:
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
    finally:
        await consumer.stop()
        await producer.stop()


if __name__ == "__main__":
    run_until_terminated(main)
