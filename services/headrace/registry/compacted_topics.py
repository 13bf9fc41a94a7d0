"""The compacted topics of one partition as state: read by a consumer, written record by record.

classify.models holds versions, aliases, verdicts, trainings, certificates and rules of labels. Records that compaction
has not taken yet tell how aliases moved. classify.workers holds who writes which results topic, and what workers are
about to try. classify.teaching holds what labellers spend, classify.keys the API keys, classify.usage what was asked
with each.

Workers of a version before classify.workers wrote claims and attempts to classify.models. They may still run beside
those of today, which read there what the older ones left or go on to write, and write nothing there.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from operator import attrgetter
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import msgspec

from headrace.core.errors import raise_failed
from headrace.core.label_rules import rules_of
from headrace.kafka.interface import (
    Appended,
    Cluster,
    Outgoing,
    Record,
    TopicPartition,
    UnknownTopicError,
)
from headrace.kafka.range_reader import read_ranges, read_topic
from headrace.process.logs import event
from headrace_schemas.codec import (
    decode_api_key,
    decode_models_record,
    decode_teaching_record,
    decode_usage,
    decode_workers_record,
    encode_api_key,
    encode_models_record,
    encode_teaching_record,
    encode_usage,
    encode_workers_record,
)
from headrace_schemas.errors import BadTypeError, WireError
from headrace_schemas.records import (
    ApiKey,
    Attempt,
    Certificate,
    LabellerState,
    LabelRule,
    MaxBatch,
    ModelAlias,
    ModelsRecord,
    ModelVersion,
    ResultsClaim,
    Spending,
    TeachingRecord,
    ThresholdRaise,
    Training,
    TrainingOrder,
    Usage,
    Verdict,
    WorkersRecord,
)
from headrace_schemas.topics import api_key_key, models_key, teaching_key, usage_key, workers_key

R = TypeVar("R")


class CompactedLog(ABC, Generic[R]):
    """Reads the topic with a consumer of its own, from its beginning; :meth:`refresh` reads to its present end.

    The topic has one partition, so its order is the order of decisions. A record that can't be decoded, or that has a
    wrong key, is left out and logged as the event ``rubbish``. A ``followed`` topic is fetched all the time, and
    :meth:`look` takes the records that came; any other is fetched only by :meth:`refresh`.
    """

    rubbish: ClassVar[str]
    followed: ClassVar[bool]

    def __init__(self, cluster: Cluster, topic: str) -> None:
        self._consumer = cluster.consumer()
        self.name = TopicPartition(topic, 0)
        self._position = 0
        self._one_at_a_time = asyncio.Lock()

    @abstractmethod
    def _decode(self, value: bytes | None) -> R | None:
        """The record of a value, None for a tombstone; raises a WireError."""

    @abstractmethod
    def _key(self, record: R) -> bytes:
        """The key that keeps ``record``; raises BadKeyError."""

    @abstractmethod
    def _keep(self, record: R) -> None:
        """Take ``record`` in. Raises a WireError for a record that makes no sense."""

    @abstractmethod
    def _forget(self, key: bytes | None) -> None:
        """A tombstone removes what was kept under ``key``."""

    async def start(self) -> None:
        """Raises UnknownTopicError when the topic is not there."""
        await self._consumer.start()
        if 0 not in await self._consumer.partitions_of(self.name.topic):
            raise UnknownTopicError(
                f"There is no topic {self.name.topic}. Create headrace's topics with `headrace topics apply`."
            )
        self._position = (await self._consumer.beginning_offsets([self.name]))[self.name]
        await self.refresh()

    async def stop(self) -> None:
        await self._consumer.stop()

    async def refresh(self) -> None:
        """Take in every record up to the end offset as it is now. Raises as read_ranges does."""
        async with self._one_at_a_time:
            await self._read_to((await self._consumer.end_offsets([self.name]))[self.name])

    async def read_to(self, end: int) -> None:
        """Take in every record up to the offset ``end``. Raises as read_ranges does."""
        async with self._one_at_a_time:
            await self._read_to(end)

    async def _read_to(self, end: int) -> None:
        try:
            async for records in read_ranges(self._consumer, {self.name: self._position}, {self.name: end}):
                self._take(records)
            # The last offsets may hold no record.
            self._position = max(self._position, end)
        finally:
            if self.followed:
                self._consumer.assign([self.name])
                self._consumer.seek(self.name, self._position)
            else:
                self._consumer.assign(())

    async def look(self, wait_s: float = 0.0) -> None:
        """Take in the records of a ``followed`` topic that have come already, or come within ``wait_s``."""
        async with self._one_at_a_time:
            chunks = await self._consumer.fetch(max_records=1000, timeout_s=wait_s)
            self._take(chunks.get(self.name, ()))

    def _take(self, records: Sequence[Record]) -> None:
        for record in records:
            self._take_one(record)
            self._position = record.offset + 1

    def _take_one(self, record: Record) -> None:
        try:
            decoded = self._decode(record.value)
            if decoded is None:
                self._forget(record.key)
            elif (key := self._key(decoded)) == record.key:
                self._keep(decoded)
            else:
                event(self.rubbish, level="warning", offset=record.offset, error=f"its key is not {key.decode()}")
        except WireError as error:
            event(self.rubbish, level="warning", offset=record.offset, error=str(error))


class BatchSender(Protocol):
    """The part of a producer that writing needs."""

    async def send_batch(self, topic: str, partition: int, records: Sequence[Outgoing]) -> Appended: ...


class CompactedWriter(Generic[R]):
    """Appends to ``topic`` by ``sender`` and waits for the acknowledgement. Raises what the sender raises."""

    def __init__(
        self, sender: BatchSender, topic: str, *, encode: Callable[[R], bytes], key: Callable[[R], bytes]
    ) -> None:
        self._sender = sender
        self._topic = topic
        self._encode = encode
        self._key = key

    async def publish(self, records: Sequence[R]) -> None:
        await self._send([Outgoing(self._encode(record), self._key(record)) for record in records])

    async def forget(self, records: Sequence[R]) -> None:
        """Take records back by tombstones."""
        await self._send([Outgoing(None, self._key(record)) for record in records])

    async def _send(self, records: Sequence[Outgoing]) -> None:
        await self._sender.send_batch(self._topic, 0, records)


class ModelsLog(CompactedLog[ModelsRecord]):
    """Follows the topic; of every kind of record the last under its key holds.

    ``claims`` and ``attempts`` are those of workers of a version that had no classify.workers; of the claims to one
    results topic the first in the log holds. :class:`WorkersLog` says what they mean.
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

    def rules_of(self, name: str) -> dict[str, str | None]:
        """As which label each label of model ``name`` is learnt from now on."""
        return rules_of((rule.label, rule.becomes) for rule in self.label_rules.values() if rule.name == name)

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


class Move(msgspec.Struct, frozen=True):
    """A record that moved or pinned an alias, and the record's time stamp in milliseconds since the Unix epoch."""

    alias: ModelAlias
    recorded_ms: int


async def models_records(cluster: Cluster, topic: str, kind: type[R]) -> AsyncIterator[tuple[Record, R]]:
    """Every record of type ``kind``, raw and decoded, oldest first, up to the topic's present end.

    Records that can't be decoded are skipped. Raises a KafkaError.
    """
    async for record in read_topic(cluster, topic, "versions"):
        try:
            decoded = decode_models_record(record.value)
        except WireError:  # whoever follows the topic logs it
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


UNKNOWN_MAX_BATCH = 4096
"""The max_batch of a claim without one: the largest value that the setting allowed at that time."""

CREDIBLE_MAX_BATCH = 1 << 16
"""No release writes more. With a larger number workers would read a whole results log at each resume."""


class WorkersLog(CompactedLog[WorkersRecord]):
    """Reads the topic; ``models`` is read beside it, by :meth:`refresh` too, and has to be started by its owner.

    To one results topic a claim that was copied from classify.models holds, otherwise the first in the log. Every
    process claims under a key of its own, so compaction can never keep a later claim and drop the first. An older
    worker's claim on classify.models holds where there is none here.
    """

    rubbish: ClassVar[str] = "workers.rubbish"
    followed: ClassVar[bool] = False

    def __init__(self, cluster: Cluster, topic: str, models: ModelsLog) -> None:
        super().__init__(cluster, topic)
        self._models = models
        # By key. A dict keeps the place of a key that is written again, so the first claim stays the first.
        self._claims: dict[bytes, ResultsClaim] = {}
        self._raised: dict[bytes, MaxBatch] = {}
        self._attempts: dict[bytes, Attempt] = {}

    async def refresh(self) -> None:
        """Take in every record of both topics up to the end offsets as they are now."""
        models = self._models
        # This consumer is asked for both ends: the other fetches all the time, and questions wait behind a fetch.
        ends = await self._consumer.end_offsets([self.name, models.name])
        reading = self.read_to(ends[self.name]), models.read_to(ends[models.name])
        raise_failed(await asyncio.gather(*reading, return_exceptions=True))

    @property
    def results_topics(self) -> list[str]:
        """All results topics that are claimed, by name."""
        return sorted({claim.results for claim in self._claims.values()} | self._models.claims.keys())

    def claim_of(self, results: str) -> ResultsClaim | None:
        """The claim that holds."""
        made = self.made_here(results)
        return made[0] if made else self.left_by_older(results)

    def made_here(self, results: str) -> list[ResultsClaim]:
        """The claims on this topic: the one that holds, then those that lost and were not taken back yet."""
        made = [claim for claim in self._claims.values() if claim.results == results]
        return sorted(made, key=lambda claim: claim.claimer is not None)  # stable

    def left_by_older(self, results: str) -> ResultsClaim | None:
        """The claim that an older worker has written to classify.models."""
        return self._models.claims.get(results)

    def max_batch_of(self, results: str) -> int:
        """The largest batch, in requests, of any worker that writes ``results``."""
        claim = self.claim_of(results)
        claimed = None if claim is None else claim.max_batch
        if claimed is None or not 1 <= claimed <= CREDIBLE_MAX_BATCH:
            claimed = UNKNOWN_MAX_BATCH
        return max([claimed, *(raised.max_batch for raised in self._raised.values() if raised.results == results)])

    def start_of(self, results: str, partition: int) -> int:
        """Where the group that owns ``results`` began ``partition``; partitions added later begin at 0."""
        claim = self.claim_of(results)
        return claim.starts[partition] if claim is not None and partition < len(claim.starts) else 0

    def attempts_at(self, results: str, partition: int) -> list[Attempt]:
        """The attempts in the log: that of a worker of this release, and that of an older one, whose deaths count as 0.

        A user with the right to write versions could forge the older one, and must not get a request condemned.
        """
        of_today = [a for a in self._attempts.values() if (a.results, a.partition) == (results, partition)]
        older = self._models.attempts.get((results, partition))
        return of_today if older is None else [*of_today, msgspec.structs.replace(older, deaths=0)]

    def _decode(self, value: bytes | None) -> WorkersRecord | None:
        return decode_workers_record(value)

    def _key(self, record: WorkersRecord) -> bytes:
        return workers_key(record)

    def _keep(self, record: WorkersRecord) -> None:
        key = workers_key(record)
        match record:
            case ResultsClaim():
                self._claims[key] = record
            case MaxBatch():
                if not 1 <= record.max_batch <= CREDIBLE_MAX_BATCH:
                    raise BadTypeError("max_batch", f"is {record.max_batch}, at most {CREDIBLE_MAX_BATCH} is allowed")
                self._raised[key] = record
            case Attempt():
                self._attempts[key] = record

    def _forget(self, key: bytes | None) -> None:
        if key is not None:
            self._claims.pop(key, None)
            self._raised.pop(key, None)
            self._attempts.pop(key, None)


class WorkersWriter(CompactedWriter[WorkersRecord]):
    """Appends records of classify.workers."""

    def __init__(self, sender: BatchSender, topic: str) -> None:
        super().__init__(sender, topic, encode=encode_workers_record, key=workers_key)


async def copy_older_claims(log: WorkersLog, writer: WorkersWriter) -> Sequence[ResultsClaim]:
    """Copy older workers' claims from classify.models if classify.workers has none. Returns the copied claims.

    May be interrupted and run again. Attempts are not copied: the older worker takes its own back, and a copy would
    stay and accuse requests over which nobody died. Raises a KafkaError.
    """
    await log.refresh()
    older = [claim for results in log.results_topics if (claim := log.left_by_older(results)) is not None]
    if copies := [claim for claim in older if not log.made_here(claim.results)]:
        await writer.publish(copies)
    return copies


class TeachingLog(CompactedLog[TeachingRecord]):
    """Reads classify.teaching: what labellers have spent, and their state."""

    rubbish: ClassVar[str] = "teaching.rubbish"
    followed: ClassVar[bool] = False

    def __init__(self, cluster: Cluster, topic: str) -> None:
        super().__init__(cluster, topic)
        self.spendings: dict[bytes, Spending] = {}
        self.states: dict[bytes, LabellerState] = {}

    def _decode(self, value: bytes | None) -> TeachingRecord | None:
        return decode_teaching_record(value)

    def _key(self, record: TeachingRecord) -> bytes:
        return teaching_key(record)

    def _keep(self, record: TeachingRecord) -> None:
        if isinstance(record, Spending):
            self.spendings[teaching_key(record)] = record
        else:
            self.states[teaching_key(record)] = record

    def _forget(self, key: bytes | None) -> None:
        if key is not None:
            self.spendings.pop(key, None)
            self.states.pop(key, None)


class TeachingWriter(CompactedWriter[TeachingRecord]):
    """Appends records of classify.teaching."""

    def __init__(self, sender: BatchSender, topic: str) -> None:
        super().__init__(sender, topic, encode=encode_teaching_record, key=teaching_key)


class KeysLog(CompactedLog[ApiKey]):
    """Follows classify.keys: API keys by their ids, also those that were revoked."""

    rubbish: ClassVar[str] = "keys.rubbish"
    followed: ClassVar[bool] = True

    def __init__(self, cluster: Cluster, topic: str) -> None:
        super().__init__(cluster, topic)
        self.keys: dict[str, ApiKey] = {}

    def _decode(self, value: bytes | None) -> ApiKey | None:
        return decode_api_key(value)

    def _key(self, record: ApiKey) -> bytes:
        return api_key_key(record.id)

    def _keep(self, record: ApiKey) -> None:
        self.keys[record.id] = record

    def _forget(self, key: bytes | None) -> None:
        for id_ in [id_ for id_ in self.keys if api_key_key(id_) == key]:
            del self.keys[id_]


class KeysWriter(CompactedWriter[ApiKey]):
    """Appends records of classify.keys."""

    def __init__(self, sender: BatchSender, topic: str) -> None:
        super().__init__(sender, topic, encode=encode_api_key, key=lambda record: api_key_key(record.id))


class UsageLog(CompactedLog[Usage]):
    """Reads classify.usage: of each API key, day and process of a gateway what was asked in all."""

    rubbish: ClassVar[str] = "usage.rubbish"
    followed: ClassVar[bool] = False

    def __init__(self, cluster: Cluster, topic: str) -> None:
        super().__init__(cluster, topic)
        self.usages: dict[bytes, Usage] = {}

    def _decode(self, value: bytes | None) -> Usage | None:
        return decode_usage(value)

    def _key(self, record: Usage) -> bytes:
        return _usage_key(record)

    def _keep(self, record: Usage) -> None:
        self.usages[_usage_key(record)] = record

    def _forget(self, key: bytes | None) -> None:
        if key is not None:
            self.usages.pop(key, None)


class UsageWriter(CompactedWriter[Usage]):
    """Appends records of classify.usage."""

    def __init__(self, sender: BatchSender, topic: str) -> None:
        super().__init__(sender, topic, encode=encode_usage, key=_usage_key)


def _usage_key(record: Usage) -> bytes:
    return usage_key(record.api_key, record.day, record.process)
