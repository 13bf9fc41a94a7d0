"""Read the labels topic: up to the frozen ends of a snapshot, or all that it holds now, to write it to a file."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from headrace.core.label_rules import Rules, learnt_as
from headrace.core.text import label_name
from headrace.files import DatasetError
from headrace.files.output import OutputError
from headrace.files.spreadsheet import csv_writer
from headrace.kafka.interface import Cluster, Consumer, Record, TopicPartition
from headrace.kafka.range_reader import read_ranges, read_topic
from headrace.learning.data.validation import EMPTY_LABEL, RETIRED_LABEL, UNKNOWN_LABEL, is_allowed, last_of_ids
from headrace.model import store
from headrace.model.places import Location
from headrace.process.logs import event
from headrace_schemas.codec import decode_label
from headrace_schemas.errors import BadKeyError, WireError, place
from headrace_schemas.headers import content_type
from headrace_schemas.records import LabelledText, OffsetRange

if TYPE_CHECKING:
    from headrace.learning.distributed.job import TopicSource


class LastRecord(msgspec.Struct, frozen=True):
    """The last record of ``id``, the record's key, in one partition.

    ``content`` is the label, None for the tombstone that erases, or the code that says why there is neither: of a
    WireError, UNKNOWN_LABEL or RETIRED_LABEL. ``before``: how many earlier records of the id in this partition are no
    tombstones; compaction may have removed some.
    """

    id: bytes
    partition: int
    offset: int
    timestamp_ms: int
    content: LabelledText | str | None
    before: int


class Shard(msgspec.Struct, frozen=True, kw_only=True):
    """What some partitions of ``topic`` hold: the last record of each id and partition, by partition and offset.

    ``dropped``: by reason, records that can't have an id (``bad-key``), and offsets that retention took before they
    were read (``retention``).
    """

    topic: str
    records: tuple[LastRecord, ...]
    dropped: dict[str, int]


async def read_partitions(cluster: Cluster, source: TopicSource, partitions: Collection[int]) -> Shard:
    """Read ``partitions`` of the topic, each within its range of ``source``; the consumer belongs to no group.

    In one partition the last record of an id counts, as it does for compaction, so a log that was compacted meanwhile
    gives the same records; a last record that can't be read replaces the earlier ones too. Raises DatasetError for a
    log that ends before its range does, BrokerUnavailableError when nothing comes for a minute, and other KafkaErrors.
    """
    allowed = frozenset(learnt_as(label_name(label), source.rules) or "" for label in source.labels)
    last: dict[tuple[int, bytes], LastRecord] = {}
    dropped: Counter[str] = Counter()
    async for record in read_frozen(cluster, source.topic, source.ranges, partitions, dropped):
        if record.key:
            before = last.get((record.partition, record.key))
            last[record.partition, record.key] = _last(record, before, source, allowed)
        else:
            dropped[BadKeyError.code] += 1
    return Shard(
        topic=source.topic,
        records=tuple(sorted(last.values(), key=lambda one: (one.partition, one.offset))),
        dropped=dict(dropped),
    )


async def read_frozen(
    cluster: Cluster, topic: str, ranges: Collection[OffsetRange], partitions: Collection[int], dropped: Counter[str]
) -> AsyncIterator[Record]:
    """Iterate over the records of ``partitions`` of ``topic``, each within its range; a consumer of no group reads.

    ``dropped`` counts offsets that retention took before (``retention``). Raises as :func:`read_partitions` does.
    """
    of = {TopicPartition(topic, one.partition): one for one in ranges if one.partition in partitions}
    if missing := set(partitions) - {name.partition for name in of}:
        raise ValueError(f"the job gives no range for the partitions {sorted(missing)} of {topic}")
    consumer = cluster.consumer(read_committed=True)
    await consumer.start()
    try:
        starts = await _starts(consumer, of)
        for name, start in starts.items():
            if lost := start - of[name].first:
                event("labels.lost", level="warning", topic=name.topic, partition=name.partition, offsets=lost)
                dropped["retention"] += lost
        async for chunk in read_ranges(consumer, starts, {name: one.end for name, one in of.items()}):
            for record in chunk:
                yield record
    finally:
        await consumer.stop()


async def _starts(consumer: Consumer, ranges: Mapping[TopicPartition, OffsetRange]) -> dict[TopicPartition, int]:
    """Where each partition is read from: its range's first offset, or what retention has left of the range."""
    ends = await consumer.end_offsets(ranges)
    for name, one in ranges.items():
        if ends[name] < one.end:
            raise DatasetError(
                f"{name.topic}[{name.partition}] ends at offset {ends[name]}, before the end of this training's range,"
                f" {one.end}: the topic was cut or made anew. Train on what it holds now"
            )
    beginnings = await consumer.beginning_offsets(ranges)
    return {name: min(max(one.first, beginnings[name]), one.end) for name, one in ranges.items()}


def _last(record: Record, before: LastRecord | None, source: TopicSource, allowed: Collection[str]) -> LastRecord:
    content: LabelledText | str | None
    try:
        where = place(record.topic, record.partition, record.offset)
        content = decode_label(
            record.value, content_type(record.headers, where), limit=source.max_text_bytes, where=where
        )
    except WireError as error:
        event("labels.unreadable", level="warning", error=str(error))
        content = error.code
    if isinstance(content, LabelledText):
        content = ruled(content, source.rules) or RETIRED_LABEL
    if isinstance(content, LabelledText) and not is_allowed(label_name(content.label), allowed):
        content = UNKNOWN_LABEL
    return LastRecord(
        id=record.key or b"",
        partition=record.partition,
        offset=record.offset,
        timestamp_ms=record.timestamp,
        content=content,
        before=0 if before is None else before.before + (before.content is not None),
    )


def which_count(last: Sequence[tuple[bytes, int, int]]) -> list[bool]:
    """Of the last records of each id and partition, as (id, timestamp in milliseconds, partition), those that count.

    As in a training: see :func:`~headrace.learning.data.validation.last_of_ids`.
    """
    numbers: dict[bytes, int] = {}
    columns = [(numbers.setdefault(id_, len(numbers)), time, partition) for id_, time, partition in last]
    ids, times, partitions = np.array(columns, np.int64).reshape(-1, 3).T
    return [bool(counts) for counts in last_of_ids(ids, times, partitions)]


def ruled(label: LabelledText, rules: Rules) -> LabelledText | None:
    """``label`` as it is learnt, None where its class is no longer given. Without a rule it stays as it is."""
    name = label_name(label.label)
    learnt = learnt_as(name, rules)
    if learnt is None:
        return None
    return label if learnt == name else msgspec.structs.replace(label, label=learnt)


class There(msgspec.Struct, frozen=True):
    """A label on the topic: its id, text and label, whose name is spelled as training spells it.

    ``error`` says why the trainer can't use it, and then text and label are empty.
    """

    id: str
    text: str
    label: str
    error: str | None = None
    source: str | None = None
    labelled_at_ms: int | None = None
    by: str | None = None
    guessed: str | None = None
    version: str | None = None

    def cells(self) -> tuple[str, ...]:
        """What a line of a list shows."""
        return self.id, self.label, self.text


async def read_labels(cluster: Cluster, topic: str, only: Collection[str] | None = None) -> list[There]:
    """Read what the topic holds now, of the ids ``only`` where they are given, in the order of the first records.

    Which record of an id counts is as in a training (:func:`~headrace.learning.data.validation.last_of_ids`). Raises a
    KafkaError.
    """
    return [
        _there((record.key or b"").decode("utf-8", "backslashreplace"), record)
        for record in await records_that_count(cluster, topic, only)
    ]


async def records_that_count(cluster: Cluster, topic: str, only: Collection[str] | None = None) -> list[Record]:
    """Of each id that is not erased the record that counts, as :func:`read_labels` says, decoded by nobody yet."""
    wanted = None if only is None else {id_.encode() for id_ in only}
    last: dict[bytes, dict[int, Record]] = {}
    async for record in read_topic(cluster, topic, "labels"):
        if record.key is not None and (wanted is None or record.key in wanted):
            last.setdefault(record.key, {})[record.partition] = record
    held = [record for of in last.values() for record in of.values()]
    counted = which_count([(record.key or b"", record.timestamp, record.partition) for record in held])
    return [record for record, counts in zip(held, counted, strict=True) if counts and record.value is not None]


def _there(id_: str, record: Record) -> There:
    try:
        label = decode_label(record.value, content_type(record.headers))
    except WireError as error:
        return There(id_, "", "", error.code)
    if label is None or not (name := label_name(label.label)):
        return There(id_, "", "", EMPTY_LABEL)
    return There(
        id_,
        label.text,
        name,
        source=label.source,
        labelled_at_ms=label.labelled_at_ms,
        by=label.by,
        guessed=label.guessed,
        version=label.version,
    )


SUFFIXES = (".jsonl", ".csv")
_TOLD = ("source", "labelled_at_ms", "by", "guessed", "version")


def check_suffix(file: str) -> None:
    """Raise OutputError for a ``file`` with another suffix than SUFFIXES."""
    if not file.lower().endswith(SUFFIXES):
        raise OutputError(f"{file}: labels are written as {' or '.join(SUFFIXES)}.")


def write_labels(where: Location, labels: Sequence[There]) -> None:
    """Write ``labels`` for the owner's eyes alone, with all by which they can be restored; a part of a file is never
    left.

    Raises StoreError when the file can't be written.
    """
    out = io.StringIO(newline="")
    if where.below[-1].lower().endswith(".csv"):
        columns = ("id", "text", "label", *_TOLD)
        write = csv_writer(out, columns)
        for one in labels:
            write(tuple(getattr(one, name) for name in columns))
    else:
        for one in labels:
            row: dict[str, object] = {"id": one.id, "text": one.text, "label": one.label}
            row |= {name: value for name in _TOLD if (value := getattr(one, name)) is not None}
            out.write(f"{msgspec.json.encode(row).decode()}\n")
    store.write(where, out.getvalue().encode(), "export", private=True)
