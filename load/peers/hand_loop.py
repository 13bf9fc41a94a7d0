"""Two loops that people write by hand on aiokafka: `python -m load.peers.hand_loop one` and `... batch`."""

from __future__ import annotations

import asyncio
import functools
import sys

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from load.peers.model import BATCH, Model, open_model
from load.peers.running import from_environment, run_until_terminated


async def main(*, by_batch: bool) -> None:
    """Answer until cancelled."""
    settings = from_environment()
    model = open_model(settings)
    producer = AIOKafkaProducer(bootstrap_servers=settings.bootstrap, enable_idempotence=True)
    consumer = AIOKafkaConsumer(
        settings.requests,
        bootstrap_servers=settings.bootstrap,
        group_id=settings.group,
        auto_offset_reset="earliest",
        enable_auto_commit=not by_batch,
    )
    async with producer, consumer:
        await (batch if by_batch else one)(consumer, producer, model, settings.results)


async def one(consumer: AIOKafkaConsumer, producer: AIOKafkaProducer, model: Model, results: str) -> None:
    """The loop of a tutorial. Sends don't wait for their acknowledgement, and the client commits every five seconds."""
    async for message in consumer:
        (answer,) = model.answer([orjson.loads(message.value)])
        await producer.send(results, orjson.dumps(answer), key=message.key)


async def batch(consumer: AIOKafkaConsumer, producer: AIOKafkaProducer, model: Model, results: str) -> None:
    """A careful loop, at least once as aiokafka's documentation describes it: process, wait for the answers, commit.

    The model runs on a thread.
    """
    while True:
        chunks = await consumer.getmany(timeout_ms=1000, max_records=BATCH)
        records = [record for chunk in chunks.values() for record in chunk]
        if not records:
            continue
        answers = await asyncio.to_thread(model.answer, [orjson.loads(record.value) for record in records])
        sent = [
            await producer.send(results, orjson.dumps(answer), key=record.key)
            for record, answer in zip(records, answers, strict=True)
        ]
        await asyncio.gather(*sent)
        await consumer.commit()


if __name__ == "__main__":
    run_until_terminated(functools.partial(main, by_batch=sys.argv[1] == "batch"))
