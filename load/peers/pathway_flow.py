"""Pathway with its Kafka connectors and a batched user function."""

from __future__ import annotations

import orjson
import pathway as pw

from load.peers.model import BATCH, open_model
from load.peers.running import from_environment

settings = from_environment()
model = open_model(settings)


class Request(pw.Schema):
    """``id`` is Pathway's own column, so the request's is called number."""

    number: str
    text: str


@pw.udf(max_batch_size=BATCH, deterministic=True)
def answer(numbers: list[str], texts: list[str]) -> list[bytes]:
    """The answers as JSON."""
    requests = [{"id": number, "text": text} for number, text in zip(numbers, texts, strict=True)]
    return [orjson.dumps(found) for found in model.answer(requests)]


def main() -> None:
    """Run the table's flow until it is ended."""
    requests = pw.io.kafka.read(
        {
            "bootstrap.servers": settings.bootstrap,
            "group.id": settings.group,
            "auto.offset.reset": "earliest",
        },
        topic=settings.requests,
        format="json",
        schema=Request,
        json_field_paths={"number": "/id"},
        autocommit_duration_ms=100,
        # Without it a backlog is read whole before the first answer is written.
        max_backlog_size=1000,
    )
    answers = requests.select(data=answer(requests.number, requests.text))
    pw.io.kafka.write(
        answers,
        {"bootstrap.servers": settings.bootstrap, "enable.idempotence": "true"},
        topic_name=settings.results,
        format="raw",
    )
    pw.run(monitoring_level=pw.MonitoringLevel.NONE)


if __name__ == "__main__":
    main()
