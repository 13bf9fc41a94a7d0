"""bytewax with its Kafka connectors: `python -m bytewax.run load.peers.bytewax_flow:flow`.

Without a recovery store, which is its default, it keeps no place and saves the commits that others pay for.
"""

from __future__ import annotations

import bytewax.operators as op
import orjson
from bytewax.connectors.kafka import KafkaSinkMessage, KafkaSourceMessage
from bytewax.connectors.kafka import operators as kop
from bytewax.dataflow import Dataflow

from load.peers.model import BATCH, open_model
from load.peers.running import from_environment

settings = from_environment()
model = open_model(settings)


def answered(messages: list[KafkaSourceMessage]) -> list[KafkaSinkMessage]:
    """The answers to what one poll brought."""
    answers = model.answer([orjson.loads(message.value) for message in messages])
    return [
        KafkaSinkMessage(message.key, orjson.dumps(answer)) for message, answer in zip(messages, answers, strict=True)
    ]


flow = Dataflow("classify")
requests = kop.input("requests", flow, brokers=[settings.bootstrap], topics=[settings.requests], batch_size=BATCH)
answers = op.flat_map_batch("answer", requests.oks, answered)
kop.output(
    "results", answers, brokers=[settings.bootstrap], topic=settings.results, add_config={"enable.idempotence": "true"}
)
