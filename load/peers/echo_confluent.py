"""No model: confluent-kafka, which is librdkafka, and an answer as long as headrace's. What this client can do."""

from __future__ import annotations

import signal
from threading import Event

from confluent_kafka import Consumer, KafkaException, Producer

from load.peers.echo import answer
from load.peers.running import from_environment


def main() -> None:
    """Consume by the thousand and produce; librdkafka batches, acknowledges and commits behind."""
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
    main()
