"""FastStream by the batch: `python -m faststream run load.peers.faststream_batch:app`."""

from __future__ import annotations

from faststream import FastStream
from faststream.kafka import KafkaBroker
from pydantic import BaseModel

from load.peers.model import BATCH, open_model
from load.peers.running import from_environment

settings = from_environment()
model = open_model(settings)
# The answers to a batch are one batch, which has to fit.
broker = KafkaBroker(settings.bootstrap, enable_idempotence=True, acks="all", max_batch_size=1 << 20)
app = FastStream(broker)


class Request(BaseModel):
    """A request's value."""

    id: str
    text: str


class Answer(BaseModel):
    """An answer's value."""

    id: str
    label: str
    score: float
    version: str


# A plain function runs on a thread, as FastStream's documentation advises for what computes.
@broker.subscriber(
    settings.requests,
    batch=True,
    max_records=BATCH,
    group_id=settings.group,
    auto_offset_reset="earliest",
)
@broker.publisher(settings.results, batch=True)
def handle(requests: list[Request]) -> list[Answer]:
    """The answers to what one fetch brought; FastStream publishes them."""
    answers = model.answer([request.model_dump() for request in requests])
    return [Answer.model_validate(answer) for answer in answers]
