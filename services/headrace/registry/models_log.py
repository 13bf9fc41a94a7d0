"""The topic classify.models as state: versions, aliases, verdicts, trainings, certificates, rules of labels.

What older workers left there is read too.

Records are written under the key that keeps them. Those that compaction has not taken yet tell how aliases moved.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Hashable
from operator import attrgetter
from typing import Any, ClassVar, TypeVar

import msgspec

from headrace.kafka.interface import Cluster, Record
from headrace.kafka.range_reader import read_topic
from headrace.registry.compacted_log import BatchSender, CompactedLog, CompactedWriter
from headrace_schemas.codec import decode_models_record, encode_models_record
from headrace_schemas.errors import WireError
from headrace_schemas.records import (
    Attempt,
    Certificate,
    LabelRule,
    ModelAlias,
    ModelsRecord,
    ModelVersion,
    ResultsClaim,
    ThresholdRaise,
    Training,
    TrainingOrder,
    Verdict,
)
from headrace_schemas.topics import models_key


class ModelsLog(CompactedLog[ModelsRecord]):
    """Follows the topic; of every kind of record the last under its key holds.

    ``claims`` and ``attempts`` are those of workers of a version that had no classify.workers; of the claims to one
    results topic the first in the log holds. :class:`~headrace.registry.workers_log.WorkersLog` says what they mean.
    """

    rubbish: ClassVar[str] = "models.rubbish"
    followed: ClassVar[bool] = True

    def __init__(self, cluster: Cluster, topic: str) -> None:
        super().__init__(cluster, topic)
        self.versions: dict[tuple[str, str], ModelVersion] = {}
        self.aliases: dict[tuple[str, str], ModelAlias] = {}
        self.verdicts: dict[tuple[str, str], Verdict] = {}
        self.trainings: dict[str, Training] = {}
        self.orders: dict[str, TrainingOrder] = {}
        self.certificates: dict[tuple[str, str], Certificate] = {}
        self.raises: dict[tuple[str, str], ThresholdRaise] = {}
        self.label_rules: dict[tuple[str, str], LabelRule] = {}
        self.claims: dict[str, ResultsClaim] = {}
        self.attempts: dict[tuple[str, int], Attempt] = {}
        self._tables: dict[type, tuple[dict[Any, Any], Callable[[Any], Hashable]]] = {
            ModelVersion: (self.versions, attrgetter("name", "version")),
            ModelAlias: (self.aliases, attrgetter("name", "alias")),
            Verdict: (self.verdicts, attrgetter("name", "version")),
            Training: (self.trainings, attrgetter("name")),
            TrainingOrder: (self.orders, attrgetter("name")),
            Certificate: (self.certificates, attrgetter("name", "version")),
            ThresholdRaise: (self.raises, attrgetter("name", "version")),
            LabelRule: (self.label_rules, attrgetter("name", "label")),
            Attempt: (self.attempts, attrgetter("results", "partition")),
        }

    def resolve(self, name: str, alias: str) -> ModelVersion | None:
        """The version that ``alias`` of model ``name`` points at, or None."""
        pointer = self.aliases.get((name, alias))
        return None if pointer is None else self.versions.get((name, pointer.version))

    def _decode(self, value: bytes | None) -> ModelsRecord | None:
        return decode_models_record(value)

    def _key(self, record: ModelsRecord) -> bytes:
        return models_key(record)

    def _keep(self, record: ModelsRecord) -> None:
        if isinstance(record, ResultsClaim):
            self.claims.setdefault(record.results, record)
        else:
            known, name_of = self._tables[type(record)]
            known[name_of(record)] = record

    def _forget(self, key: bytes | None) -> None:
        for known in (self.claims, *(table for table, _ in self._tables.values())):
            for name in [name for name, record in known.items() if models_key(record) == key]:
                del known[name]


class ModelsWriter(CompactedWriter[ModelsRecord]):
    """Appends records of classify.models."""

    def __init__(self, sender: BatchSender, topic: str) -> None:
        super().__init__(sender, topic, encode=encode_models_record, key=models_key)


R = TypeVar("R")


class Move(msgspec.Struct, frozen=True):
    """A record that moved, or pinned, an alias, and the record's own time in milliseconds since the Unix epoch."""

    alias: ModelAlias
    recorded_ms: int


async def models_records(cluster: Cluster, topic: str, kind: type[R]) -> AsyncIterator[tuple[Record, R]]:
    """Every record of that kind, as it lies there and decoded, oldest first, up to the topic's present end.

    What can't be decoded is passed over. Raises a KafkaError.
    """
    async for record in read_topic(cluster, topic, "versions"):
        try:
            decoded = decode_models_record(record.value)
        except WireError:  # who follows the topic has been told of it
            continue
        if isinstance(decoded, kind):
            yield record, decoded


async def alias_moves(cluster: Cluster, topic: str, name: str) -> list[Move]:
    """The records of model ``name``'s aliases, oldest first, up to the topic's present end. Raises a KafkaError."""
    return [
        Move(alias, record.timestamp)
        async for record, alias in models_records(cluster, topic, ModelAlias)
        if alias.name == name
    ]
