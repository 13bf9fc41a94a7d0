"""The twin's topics: append-only partition logs with a start, holes and an end, as Kafka's are."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence

from headrace.kafka.interface import FetchedRecord, Outgoing, RecordTooLargeError, TopicPartition, TopicSpec

# Kafka's own defaults, reported by describe_topics for topics that do not say otherwise.
DEFAULT_CONFIG = {
    "cleanup.policy": "delete",
    "max.message.bytes": "1048588",
    "message.timestamp.type": "CreateTime",
    "min.insync.replicas": "1",
    "retention.ms": "604800000",
    "unclean.leader.election.enable": "false",
}

RECORD_OVERHEAD_BYTES = 21  # what Kafka's batch format adds to a record's own bytes, at most


class PartitionLog:
    """One partition. ``start`` and ``end`` are offsets; an offset between them may hold no record."""

    def __init__(self, partition: TopicPartition, config: Mapping[str, str]) -> None:
        self.partition = partition
        self._config = config  # the topic's own, so a change of it takes effect at once
        self.start = 0
        self.end = 0
        self.records: list[FetchedRecord] = []
        self._watchers: dict[Callable[[], None], None] = {}  # a dict, because its order does not depend on addresses

    def watch(self, wake: Callable[[], None]) -> None:
        """Call ``wake`` at every change until :meth:`unwatch`."""
        self._watchers[wake] = None

    def unwatch(self, wake: Callable[[], None]) -> None:
        self._watchers.pop(wake, None)

    def append_batch(self, records: Sequence[Outgoing], now_ms: int) -> int:
        """Append one batch and return its first offset. Raises RecordTooLargeError, then nothing was appended."""
        limit = int(self._config["max.message.bytes"])
        for index, record in enumerate(records):
            if record_bytes(record) > limit:
                raise RecordTooLargeError(
                    f"Record {index} for {self.partition.topic}[{self.partition.partition}] takes "
                    f"{record_bytes(record)} bytes; max.message.bytes of the topic allows {limit}. "
                    "Send less, or raise that setting.",
                    index,
                )
        first = self.end
        stamped = self._config["message.timestamp.type"] == "LogAppendTime"
        for record in records:
            timestamp = now_ms if stamped or record.timestamp_ms is None else record.timestamp_ms
            self.records.append(
                FetchedRecord(*self.partition, self.end, timestamp, record.key, record.value, tuple(record.headers))
            )
            self.end += 1
        self.wake()
        return first

    def wake(self) -> None:
        for watcher in tuple(self._watchers):
            watcher()

    def read(self, position: int, limit: int) -> list[FetchedRecord]:
        """At most ``limit`` records at or behind ``position``."""
        at = bisect_left(self.records, position, key=_offset)
        return self.records[at : at + limit]

    def offset_at(self, timestamp_ms: int) -> int | None:
        """The first offset whose timestamp is not before ``timestamp_ms``."""
        return next((record.offset for record in self.records if record.timestamp >= timestamp_ms), None)

    def truncate_before(self, start: int) -> None:
        """Drop what lies before ``start``, as retention does."""
        self.start = max(self.start, start)
        self.end = max(self.end, self.start)
        del self.records[: bisect_left(self.records, self.start, key=_offset)]
        self.wake()

    def drop_tail(self, end: int) -> None:
        """Drop offsets from ``end`` on, as an unclean leader election does."""
        del self.records[bisect_left(self.records, end, key=_offset) :]
        self.end = min(self.end, end)
        self.start = min(self.start, self.end)
        self.wake()

    def remove(self, offset: int) -> None:
        """Take one record out and keep its offset empty, as compaction does."""
        at = bisect_left(self.records, offset, key=_offset)
        if at < len(self.records) and self.records[at].offset == offset:
            del self.records[at]

    def add_gap(self) -> None:
        """Use up an offset without a record, as a transaction's control record does."""
        self.end += 1
        self.wake()

    def clear(self) -> None:
        """Begin anew at offset 0."""
        self.start = self.end = 0
        self.records.clear()
        self.wake()


class TopicLog:
    """A topic: its settings and its partitions."""

    def __init__(self, spec: TopicSpec) -> None:
        self.name = spec.name
        self.replication = spec.replication
        self.config = DEFAULT_CONFIG | spec.config
        self.partitions: list[PartitionLog] = []
        self.grow(spec.partitions)

    def grow(self, total: int) -> None:
        for number in range(len(self.partitions), total):
            self.partitions.append(PartitionLog(TopicPartition(self.name, number), self.config))


def record_bytes(record: Outgoing) -> int:
    """About what a record takes in a batch, in bytes."""
    headers = sum(len(name.encode()) + len(value or b"") + 10 for name, value in record.headers)
    return RECORD_OVERHEAD_BYTES + len(record.key or b"") + len(record.value or b"") + headers


def _offset(record: FetchedRecord) -> int:
    return record.offset
