"""The loop of a tutorial: aiokafka, one message at a time, PyTorch."""

from __future__ import annotations

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from load.peers.model import Model
from load.peers.running import from_environment, run_until_terminated


async def main() -> None:
    """Sends don't wait for their acknowledgement, and the client commits every five seconds: its defaults."""
    settings = from_environment()
    model = Model(settings.model, settings.engine, settings.threads)
    consumer = AIOKafkaConsumer(
        settings.requests,
        bootstrap_servers=settings.bootstrap,
        group_id=settings.group,
        auto_offset_reset="earliest",
    )
    producer = AIOKafkaProducer(bootstrap_servers=settings.bootstrap, enable_idempotence=True)
    await producer.start()
    await consumer.start()
    try:
        async for message in consumer:
            (answer,) = model.answer([orjson.loads(message.value)])
            await producer.send(settings.results, orjson.dumps(answer), key=message.key)
    finally:
        await consumer.stop()
        await producer.stop()


if __name__ == "__main__":
    run_until_terminated(main)
