"""The topic classify.models as state: versions, aliases, verdicts, trainings, claims, and what was being tried."""

from __future__ import annotations

import asyncio
from typing import Any

from headrace.kafka.errors import UnknownTopicError
from headrace.kafka.interface import Cluster, Record, TopicPartition
from headrace.logs import event
from headrace_schemas.codec import decode_models_record
from headrace_schemas.errors import WireError
from headrace_schemas.records import (
    Attempt,
    ModelAlias,
    ModelVersion,
    ResultsClaim,
    Training,
    TrainingOrder,
    Verdict,
)
from headrace_schemas.topics import models_key

FETCH_S = 0.5


class ModelsLog:
    """Follows the topic with a consumer of its own; :meth:`refresh` reads to its present end, :meth:`look` what came.

    The topic is compacted and has one partition, so its order is the order of decisions. Of the claims to one
    results topic the first in the log holds; of everything else the last.
    """

    def __init__(self, cluster: Cluster, topic: str) -> None:
        self._consumer = cluster.consumer()
        self._name = TopicPartition(topic, 0)
        self._position = 0
        self._one_at_a_time = asyncio.Lock()
        self.versions: dict[tuple[str, str], ModelVersion] = {}
        self.aliases: dict[tuple[str, str], ModelAlias] = {}
        self.verdicts: dict[tuple[str, str], Verdict] = {}
        self.trainings: dict[str, Training] = {}
        self.orders: dict[str, TrainingOrder] = {}
        self.claims: dict[str, ResultsClaim] = {}
        self.attempts: dict[tuple[str, int], Attempt] = {}

    async def start(self) -> None:
        """Raises UnknownTopicError when the topic is not there."""
        await self._consumer.start()
        if 0 not in await self._consumer.partitions_of(self._name.topic):
            raise UnknownTopicError(
                f"There is no topic {self._name.topic}. Create headrace's topics with `headrace topics apply`."
            )
        self._consumer.assign([self._name])
        self._position = (await self._consumer.beginning_offsets([self._name]))[self._name]
        self._consumer.seek(self._name, self._position)
        await self.refresh()

    async def stop(self) -> None:
        await self._consumer.stop()

    async def refresh(self) -> None:
        """Take in every record up to the end offset as it is now."""
        async with self._one_at_a_time:
            # What a fetch that failed or was cancelled had taken is fetched again.
            self._consumer.seek(self._name, self._position)
            end = (await self._consumer.end_offsets([self._name]))[self._name]
            while self._position < end:
                if not await self._fetch(FETCH_S):
                    self._position = await self._consumer.position(self._name)

    async def look(self) -> None:
        """Take in the records that have come already, and wait for none."""
        async with self._one_at_a_time:
            await self._fetch(0.0)

    async def _fetch(self, timeout_s: float) -> bool:
        """Take in the next records; whether there were any."""
        chunk = (await self._consumer.fetch(max_records=1000, timeout_s=timeout_s)).get(self._name, ())
        for record in chunk:
            self._take(record)
            self._position = record.offset + 1
        return bool(chunk)

    def start_of(self, results: str, partition: int) -> int:
        """Where the group that owns ``results`` began ``partition``; partitions added later begin at 0."""
        claim = self.claims.get(results)
        return claim.starts[partition] if claim is not None and partition < len(claim.starts) else 0

    def resolve(self, name: str, alias: str) -> ModelVersion | None:
        """The version that ``alias`` of model ``name`` points at, or None."""
        pointer = self.aliases.get((name, alias))
        return None if pointer is None else self.versions.get((name, pointer.version))

    def _take(self, record: Record) -> None:
        try:
            decoded = decode_models_record(record.value)
        except WireError as error:
            event("models.rubbish", level="warning", offset=record.offset, error=str(error))
            return
        match decoded:
            case None:
                self._forget(record.key)
            case ModelVersion():
                self.versions[decoded.name, decoded.version] = decoded
            case ModelAlias():
                self.aliases[decoded.name, decoded.alias] = decoded
            case Verdict():
                self.verdicts[decoded.name, decoded.version] = decoded
            case Training():
                self.trainings[decoded.name] = decoded
            case TrainingOrder():
                self.orders[decoded.name] = decoded
            case ResultsClaim():
                self.claims.setdefault(decoded.results, decoded)
            case Attempt():
                self.attempts[decoded.results, decoded.partition] = decoded

    def _forget(self, key: bytes | None) -> None:
        kinds: tuple[dict[Any, Any], ...] = (
            self.versions,
            self.aliases,
            self.verdicts,
            self.trainings,
            self.orders,
            self.claims,
            self.attempts,
        )
        for known in kinds:
            for name in [name for name, record in known.items() if models_key(record) == key]:
                del known[name]
