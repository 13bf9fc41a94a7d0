"""Writing to the topic classify.models: each record under the key that keeps it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from headrace.kafka.interface import Appended, Outgoing
from headrace_schemas.codec import encode_models_record
from headrace_schemas.records import ModelsRecord
from headrace_schemas.topics import models_key


class BatchSender(Protocol):
    """The part of a producer that writing needs."""

    async def send_batch(self, topic: str, partition: int, records: Sequence[Outgoing]) -> Appended: ...


class ModelsWriter:
    """Appends to ``topic`` by ``sender`` and waits for the acknowledgement. Raises what the sender raises."""

    def __init__(self, sender: BatchSender, topic: str) -> None:
        self._sender = sender
        self._topic = topic

    async def publish(self, records: Sequence[ModelsRecord]) -> None:
        await self._send([Outgoing(encode_models_record(record), models_key(record)) for record in records])

    async def forget(self, records: Sequence[ModelsRecord]) -> None:
        """Take records back, by tombstones."""
        await self._send([Outgoing(None, models_key(record)) for record in records])

    async def _send(self, records: Sequence[Outgoing]) -> None:
        await self._sender.send_batch(self._topic, 0, records)
