"""Quix Streams with a batching sink, which is where its documentation has calls that pay by the batch."""

from __future__ import annotations

import orjson
from confluent_kafka import Producer
from quixstreams import Application
from quixstreams.sinks import BatchingSink, SinkBatch

from load.peers.model import BATCH, open_model
from load.peers.running import Settings, from_environment


class Answers(BatchingSink):
    """Answers what a checkpoint gathered of a partition; it ends when all is acknowledged, and then commits."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._model = open_model(settings)
        self._producer = Producer({"bootstrap.servers": settings.bootstrap, "enable.idempotence": True})
        self._topic = settings.results

    def write(self, batch: SinkBatch) -> None:
        """Publish the answers to a batch. Raises RuntimeError when some are not acknowledged."""
        for chunk in batch.iter_chunks(BATCH):
            items = list(chunk)
            for item, answer in zip(items, self._model.answer([item.value for item in items]), strict=True):
                self._producer.produce(self._topic, orjson.dumps(answer), key=item.key)
        if left := self._producer.flush(30):
            raise RuntimeError(f"{left} answers were not acknowledged in 30 s: is the broker up?")


def main() -> None:
    """Checkpoints of two batches, or ten a second where there are fewer requests."""
    settings = from_environment()
    application = Application(
        broker_address=settings.bootstrap,
        consumer_group=settings.group,
        auto_offset_reset="earliest",
        auto_create_topics=False,
        commit_every=2 * BATCH,
        commit_interval=0.1,
        loglevel="WARNING",
    )
    requests = application.topic(settings.requests, key_deserializer="bytes", value_deserializer="json")
    application.dataframe(requests).sink(Answers(settings))
    application.run()


if __name__ == "__main__":
    main()
