"""A careful loop: aiokafka by the batch, the model on a thread, answers acknowledged before the commit."""

from __future__ import annotations

import asyncio

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from load.peers.model import BATCH, Model
from load.peers.running import from_environment, run_until_terminated


async def main() -> None:
    """At least once, as aiokafka's documentation describes it: process, wait for the answers, commit."""
    settings = from_environment()
    model = Model(settings.model, settings.engine, settings.threads)
    consumer = AIOKafkaConsumer(
        settings.requests,
        bootstrap_servers=settings.bootstrap,
        group_id=settings.group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    producer = AIOKafkaProducer(bootstrap_servers=settings.bootstrap, enable_idempotence=True)
    await producer.start()
    await consumer.start()
    try:
        while True:
            chunks = await consumer.getmany(timeout_ms=1000, max_records=BATCH)
            records = [record for chunk in chunks.values() for record in chunk]
            if not records:
                continue
            answers = await asyncio.to_thread(model.answer, [orjson.loads(record.value) for record in records])
            sent = [
                await producer.send(settings.results, orjson.dumps(answer), key=record.key)
                for record, answer in zip(records, answers, strict=True)
            ]
            await asyncio.gather(*sent)
            await consumer.commit()
    finally:
        await consumer.stop()
        await producer.stop()


if __name__ == "__main__":
    run_until_terminated(main)
