"""What headrace needs from a Kafka cluster: protocols, records and errors.

aiokafka's side and the tests' in-memory twin fulfil these protocols and raise only these errors, so everything above
this package runs on either of them.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from typing import NamedTuple, Protocol, TypeVar

import msgspec


class KafkaError(Exception):
    """Base of all; ``retriable`` says whether the same call may succeed later."""

    retriable = False


class BrokerUnavailableError(KafkaError):
    """No broker answers, or it answered that it can't just now (no leader, not enough replicas, time-out)."""

    retriable = True


class RebalancedError(KafkaError):
    """The call named a partition that this member no longer owns, or its group generation is over."""

    retriable = True


class OffsetOutOfRangeError(KafkaError):
    """A fetch position outside the log. ``positions`` maps (topic, partition) to the position asked for."""

    def __init__(self, positions: dict[tuple[str, int], int]) -> None:
        self.positions = positions
        super().__init__(
            ", ".join(
                f"{topic}[{partition}] has no offset {offset}" for (topic, partition), offset in positions.items()
            )
        )


class UnknownTopicError(KafkaError):
    """The cluster has no such topic or partition."""


class TopicExistsError(KafkaError):
    """The topic to create is there already."""


class RecordTooLargeError(KafkaError):
    """A record exceeds what the client or the topic takes. ``index`` is its place among the records given."""

    def __init__(self, message: str, index: int = 0) -> None:
        self.index = index
        super().__init__(message)


class ProducerDeadError(KafkaError):
    """The producer can't be used again (fenced, out of sequence, closed): make a new one and resume from the log."""


class ConsumerDeadError(KafkaError):
    """The consumer can't be used again: it was stopped."""


class NotAuthorizedError(KafkaError):
    """The user has no right to do this on the cluster."""


class NotTrustedError(KafkaError):
    """TLS failed: one side does not accept the other's certificate."""


class UnsupportedError(KafkaError):
    """The broker does not offer this (the embedded one refuses some admin calls)."""


def passes(error: KafkaError) -> bool:
    """Whether trying again may succeed. After a dead producer the caller makes a new one."""
    return error.retriable or isinstance(error, ProducerDeadError)


# Kafka allows a header without a value, and aiokafka hands it over as None.
Headers = Sequence[tuple[str, bytes | None]]


class TopicPartition(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int


class Discarded(msgspec.Struct, frozen=True, gc=False):
    """What is known of a value that was too large to be kept: ``size`` of its record in bytes, and its CRC-32."""

    size: int
    crc: int


class Record(Protocol):
    """A consumed record.

    A record that was larger than ``kafka.max_record_bytes`` has ``discarded``. Its value is empty then: no record of
    headrace is empty, and None would be a tombstone.
    """

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int:
        """Milliseconds since the Unix epoch."""

    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Headers: ...
    @property
    def discarded(self) -> Discarded | None: ...


class FetchedRecord(msgspec.Struct, frozen=True, gc=False):
    """A :class:`Record` as small as it can be."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    discarded: Discarded | None = None


def size_of(record: Record) -> int:
    """The bytes of a record's key, value and headers."""
    size = len(record.value or b"") + len(record.key or b"")
    if not record.headers:
        return size
    return size + sum(len(name.encode()) + len(value or b"") for name, value in record.headers)


def crc_of(record: Record) -> int:
    """The CRC-32 of a record's value as it was sent, whether or not it was kept."""
    return zlib.crc32(record.value or b"") if record.discarded is None else record.discarded.crc


class Outgoing(msgspec.Struct, frozen=True, gc=False):
    """A record to produce. ``timestamp_ms`` None lets the client take its clock's."""

    value: bytes | None
    key: bytes | None = None
    headers: Headers = ()
    timestamp_ms: int | None = None


class Appended(NamedTuple):
    """Where the broker put a record, or the first record of a batch."""

    partition: int
    offset: int


class Committed(NamedTuple):
    """What a group committed for a partition: where it goes on, and the text kept with it ("" without one)."""

    offset: int
    metadata: str


class TopicSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A topic to create. ``config`` holds Kafka's own keys and string values."""

    name: str
    partitions: int
    replication: int = 1
    config: dict[str, str] = {}


class TopicState(msgspec.Struct, frozen=True, kw_only=True):
    """A topic as the cluster has it. ``config`` has every key that the cluster reports."""

    name: str
    partitions: int
    replication: int
    config: dict[str, str]


class GroupMember(msgspec.Struct, frozen=True, kw_only=True):
    """A member of a group as its coordinator knows it; ``partitions`` are those that the group gave it."""

    id: str
    client: str
    host: str
    partitions: tuple[TopicPartition, ...] = ()


class GroupState(msgspec.Struct, frozen=True, kw_only=True):
    """A group as its coordinator knows it. ``state`` is in Kafka's words: Stable, Empty, Dead, PreparingRebalance,
    CompletingRebalance.
    """

    name: str
    state: str
    members: tuple[GroupMember, ...] = ()


class Permitted(msgspec.Struct, frozen=True):
    """What this user may do, in Kafka's words, by the names of topics and groups; None where no broker tells it."""

    topics: dict[str, frozenset[str] | None]
    groups: dict[str, frozenset[str] | None]


class RebalanceListener(Protocol):
    """Told of group assignment changes. ``revoked`` may wait, bounded, but never for a fetch."""

    async def revoked(self, partitions: Collection[TopicPartition]) -> None: ...
    async def assigned(self, partitions: Collection[TopicPartition]) -> None: ...


class Consumer(Protocol):
    """A consumer: of a group after :meth:`subscribe`, of chosen partitions after :meth:`assign`.

    There is no automatic commit and no automatic offset reset: a partition is fetched from where :meth:`seek` put it.
    """

    async def start(self) -> None: ...
    async def stop(self, *, leave_group: bool = True) -> None: ...
    async def subscribe(self, topics: Sequence[str], listener: RebalanceListener) -> None: ...
    def assign(self, partitions: Collection[TopicPartition]) -> None: ...
    def assignment(self) -> frozenset[TopicPartition]: ...
    def seek(self, partition: TopicPartition, offset: int) -> None: ...
    async def position(self, partition: TopicPartition) -> int: ...
    async def positions(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """The position in each of many partitions, in little time."""

    def pause(self, partitions: Collection[TopicPartition]) -> None: ...
    def resume(self, partitions: Collection[TopicPartition]) -> None: ...
    async def fetch(
        self, *, max_records: int, timeout_s: float, partitions: Collection[TopicPartition] = ()
    ) -> Mapping[TopicPartition, Sequence[Record]]:
        """Wait up to ``timeout_s`` for records of the assigned, unpaused partitions (or of ``partitions``).

        Raises OffsetOutOfRangeError (with partition and position) when a position is not inside the log.
        """

    def lease_left_s(self) -> float:
        """For how many seconds the group can't give this member's partitions to another one (see core/lease.py).

        0 outside a group, before the first assignment, and once the group has not been heard for too long.
        """

    def rejoin(self) -> None:
        """Join the group again as soon as it can be reached; both callbacks follow. A member that gave its partitions
        up at the lease's end gets them again only this way, because the group may not have noticed anything.
        """

    def long_batch_steps(self) -> int:
        """How many steps were made so far through batches that are too long to unpack at once. They bring no record
        meanwhile.
        """

    async def commit(
        self, offsets: Mapping[TopicPartition, int], *, metadata: Mapping[TopicPartition, str] | None = None
    ) -> None:
        """Commit ``offsets`` for the group in one step, each with its text of ``metadata``.

        A partition without a text loses its earlier text. A broker refuses texts over 4096 bytes.
        """

    async def committed(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, Committed]:
        """What the group committed, asked in one request; a partition without a commit is left out."""

    async def partitions_of(self, topic: str) -> frozenset[int]:
        """The partition numbers of ``topic``, empty when there is no such topic."""

    async def beginning_offsets(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]: ...
    async def end_offsets(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """The offset behind the last record that this consumer can get: the high watermark.

        For a consumer that reads committed records only, it is the last stable offset.
        """

    async def holds_nothing(self, partition: TopicPartition, offset: int, end: int) -> bool:
        """Whether the partition's leader says that there is no record from ``offset`` up to ``end``.

        Compaction may leave no record at a log's end, so a position stops short of it. False while this is not known. A
        broker that paused meanwhile may be wrong: ask twice.
        """

    async def offsets_for_times(self, times_ms: Mapping[TopicPartition, int]) -> dict[TopicPartition, int | None]: ...


class Producer(Protocol):
    """A producer that returns once the record is acknowledged by all in-sync replicas."""

    @property
    def dead(self) -> bool:
        """Whether it can't be used any more: its methods raise ProducerDeadError."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    async def send(self, topic: str, record: Outgoing, *, partition: int | None = None) -> Appended:
        """Append one record; without ``partition`` Kafka's default partitioner takes it from the key."""

    async def send_many(
        self, topic: str, records: Sequence[Outgoing], *, partition: int | None = None
    ) -> list[Appended]:
        """Append records by key, or all to ``partition``, batched as well as the client can.

        Returns where each went, in the order given.
        """

    async def send_batch(self, topic: str, partition: int, records: Sequence[Outgoing]) -> Appended:
        """Append records to one partition, in order and as few batches as they fit in, and wait for all of them.

        PackedRecords (:mod:`headrace.kafka.packed_records`) are sent in the batches that they lie in.
        Returns where the first went. On an error some prefix may have been appended, never with a gap inside it.
        Raises RecordTooLargeError naming the index when one record alone exceeds the largest request.
        """

    async def send_in_order(self, topic: str, partition: int, records: Sequence[Outgoing]) -> list[int]:
        """As :meth:`send_batch`, but returns the offset of each: batches of others may lie between two of ours."""

    async def partitions_of(self, topic: str) -> frozenset[int]: ...


class Admin(Protocol):
    """Topics and their settings."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    async def broker_count(self) -> int:
        """How many brokers the cluster has now: the most replicas that a topic can have."""

    async def describe_topics(self, names: Collection[str] | None = None) -> dict[str, TopicState]:
        """The topics that exist among ``names`` (None: all, without internal ones)."""

    async def create_topic(self, spec: TopicSpec) -> None:
        """Raises TopicExistsError when it is there already."""

    async def add_partitions(self, topic: str, total: int) -> None: ...
    async def alter_config(self, topic: str, config: Mapping[str, str]) -> None: ...
    async def delete_topic(self, topic: str) -> None: ...
    async def delete_records(self, before: Mapping[TopicPartition, int]) -> None:
        """Delete what lies before these offsets, as retention does. Raises OffsetOutOfRangeError beyond an end."""

    async def group_offsets(self, group: str) -> dict[TopicPartition, int]:
        """What the group has committed, empty for an unknown group."""

    async def describe_group(self, group: str) -> GroupState:
        """The group's members and their partitions; the state of an unknown group is Dead."""

    async def permitted(self, topics: Collection[str], groups: Collection[str]) -> Permitted:
        """What this user may do on ``topics`` and ``groups``. What it may not even see, it may do nothing on."""


class Connection(Protocol):
    """What consumers, producers and admins have in common."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...


C = TypeVar("C", bound=Connection)


@asynccontextmanager
async def connected(client: C) -> AsyncIterator[C]:
    """Start a consumer, producer or admin, and stop it at the end of the block, also when its start failed."""
    try:
        await client.start()
        yield client
    finally:
        await client.stop()


class Cluster(Protocol):
    """Makes consumers, producers and admins; one for each bootstrap address (or twin)."""

    @property
    def bootstrap(self) -> str:
        """Where it is, for people to read."""

    @property
    def batch_bytes(self) -> int:
        """Batches of its producers have fewer bytes than this. A larger record has a batch of its own."""

    async def why_away(self) -> str | None:
        """Why no address of ``bootstrap`` answers a connection made now, in words; None when one answers."""

    def calmed(self) -> AbstractContextManager[None]:
        """While the block runs, keep the library's messages about its own retries out of the log."""

    def consumer(
        self,
        *,
        group: str | None = None,
        member: str | None = None,
        read_committed: bool = False,
        in_columns: bool = False,
    ) -> Consumer:
        """``member`` is the static membership id (group.instance.id) within ``group``.

        A consumer ``in_columns`` may hand over :class:`~headrace.kafka.columns.Columns`, which cost nothing a record
        where nobody asks for one.
        """

    def producer(self) -> Producer: ...
    def admin(self) -> Admin: ...
