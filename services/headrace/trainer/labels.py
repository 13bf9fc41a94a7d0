"""Read the labels topic from its beginning and follow it: what is known, what changed, what can't be used.

Labels are few and small beside the texts, so the topic is the only state: a trainer that begins to lead reads it again.
A label that can't be used goes to the dead letters before the group's commit moves behind it. A crash between the two
repeats dead letters, which readers know by topic, partition and offset.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from headrace.core.clock import Clock
from headrace.kafka.dead_letters import Keep, dead_letter, keep_whole
from headrace.kafka.interface import Consumer, KafkaError, Outgoing, Record, TopicPartition, UnknownTopicError
from headrace.learning.data.validation import Fault, KnownLabels, text_keys
from headrace.process.logs import event
from headrace.registry.compacted_topics import BatchSender
from headrace.trainer.metrics import TrainerMetrics
from headrace_schemas.codec import decode_label
from headrace_schemas.errors import BadKeyError, RequestTooLargeError, WireError, place
from headrace_schemas.headers import content_type
from headrace_schemas.records import LabelledText, OffsetRange

STAGE = "label"


def take_labels(
    records: Sequence[Record], known: KnownLabels, *, snapped_end: int, max_text_bytes: int
) -> list[Fault | None]:
    """Take consecutive records of one partition into ``known``; why each is refused, None for those that are not.

    Offsets below ``snapped_end`` are in the last snapshot.
    """
    decoded = [_decode(record, max_text_bytes) for record in records]
    keys = iter(text_keys([label.text for label in decoded if isinstance(label, LabelledText)]))
    faults: list[Fault | None] = []
    for record, label in zip(records, decoded, strict=True):
        snapped = record.offset < snapped_end
        if isinstance(label, LabelledText):
            faults.append(known.take(record.key or b"", next(keys), label.label, snapped=snapped))
        else:
            faults.append(label)
            if record.key:
                known.remove(record.key, snapped=snapped)
    return faults


def refusal(record: Record, fault: Fault, keep: Keep) -> Outgoing:
    """The record for the dead-letters topic: what ``keep`` keeps of the label, and why it was refused."""
    message = f"{place(record.topic, record.partition, record.offset)}: {fault.message}"
    return dead_letter(record, stage=STAGE, error=fault.code, message=message, keep=keep)


def _decode(record: Record, max_text_bytes: int) -> LabelledText | Fault | None:
    """The label, None for a tombstone, or why there is neither. Only what has a key is a label or a tombstone."""
    if not record.key:
        return Fault(BadKeyError.code, "key: is the text's id, and absent")
    if record.discarded is not None:
        return Fault(RequestTooLargeError.code, f"record: has {record.discarded.size} bytes; its value is not kept")
    try:
        return decode_label(record.value, content_type(record.headers), limit=max_text_bytes)
    except WireError as error:
        return Fault(error.code, str(error))


CHUNK = 500
LOOK_FOR_PARTITIONS_S = 30.0


class LabelsReader:
    """Reads all partitions of ``topic`` by ``consumer``, which is started and belongs to a group only to commit.

    ``snapshot`` are the ranges of the last training: what is behind their ends is new. ``keep`` is what
    dead letters keep of a label.
    """

    def __init__(
        self,
        consumer: Consumer,
        known: KnownLabels,
        *,
        topic: str,
        dead_letters: str,
        snapshot: Sequence[OffsetRange],
        max_text_bytes: int,
        sender: BatchSender,
        clock: Clock,
        metrics: TrainerMetrics,
        keep: Keep = keep_whole,
    ) -> None:
        self._consumer = consumer
        self.known = known
        self._topic = topic
        self._dead_letters = dead_letters
        self._max_text_bytes = max_text_bytes
        self._sender = sender
        self._clock = clock
        self._metrics = metrics
        self._keep = keep
        self._snapped = {TopicPartition(topic, one.partition): one.end for one in snapshot}
        self._positions: dict[TopicPartition, int] = {}
        self._judged: dict[TopicPartition, int] = {}
        self._letter_partitions = 0
        self._looked_s = 0.0
        self.erased = False
        """Whether a label was erased behind the last training's snapshot, one that it holds or any other."""
        self.changed_s = clock.monotonic()
        """When the last change was read, as a monotonic time."""
        self.waiting_s: float | None = None
        """When the first change since the snapshot was read, None when there is none."""

    async def start(self) -> None:
        """Read up to the ends as they are now. Raises UnknownTopicError, and KafkaErrors that can't be mended here."""
        self._letter_partitions = len(await self._consumer.partitions_of(self._dead_letters))
        if not self._letter_partitions:
            raise UnknownTopicError(f"There is no topic {self._dead_letters} for labels that can't be used.")
        await self.catch_up()

    async def stop(self) -> None:
        await self._consumer.stop()

    async def read(self, timeout_s: float) -> None:
        """Take in what comes within ``timeout_s``. Raises OffsetOutOfRangeError when retention overtook the reading."""
        if self._clock.monotonic() - self._looked_s >= LOOK_FOR_PARTITIONS_S:
            await self._look_for_partitions()
        try:
            chunks = await self._consumer.fetch(max_records=CHUNK, timeout_s=timeout_s)
        except KafkaError:
            # What the failed fetch had taken is fetched again.
            self._seek(self._positions)
            raise
        for name, records in chunks.items():
            await self._take(name, records)
            self._positions[name] = records[-1].offset + 1
        if chunks:
            await self._commit(chunks.keys())
        self._metrics.labels(self.known.usable, self.known.new, self.known.erased)

    async def catch_up(self) -> None:
        """Take in every label up to the ends as they are now."""
        await self._look_for_partitions()
        ends = await self._consumer.end_offsets(list(self._positions))
        while behind := [name for name, end in ends.items() if self._positions[name] < end]:
            before = dict(self._positions)
            await self.read(timeout_s=0.5)
            for name in behind:
                if self._positions[name] == before[name]:
                    # Only offsets without a record may be left.
                    self._positions[name] = max(self._positions[name], await self._consumer.position(name))

    async def freeze(self) -> tuple[OffsetRange, ...]:
        """The ranges of a snapshot of all that was read; what is read from now on is new to it."""
        names = sorted(self._positions)
        begins = await self._consumer.beginning_offsets(names)
        self._snapped = {name: self._positions[name] for name in names}
        self.known.begin_snapshot()
        self.erased = False
        self.waiting_s = None
        return tuple(
            OffsetRange(name.partition, min(begins[name], self._positions[name]), self._positions[name])
            for name in names
        )

    async def _look_for_partitions(self) -> None:
        self._looked_s = self._clock.monotonic()
        names = [
            TopicPartition(self._topic, number) for number in sorted(await self._consumer.partitions_of(self._topic))
        ]
        if not names:
            raise UnknownTopicError(f"There is no topic {self._topic}. `headrace topics apply` creates it.")
        fresh = [name for name in names if name not in self._positions]
        if not fresh:
            return
        begins, ends = await self._consumer.beginning_offsets(fresh), await self._consumer.end_offsets(fresh)
        commits = dict.fromkeys(fresh, 0)
        commits |= {name: found.offset for name, found in (await self._consumer.committed(fresh)).items()}
        # Nothing is awaited from here on: a call that fails has changed nothing.
        self._positions.update(begins)
        self._judged.update(commits)
        for name in fresh:
            if max(commits[name], self._snapped.get(name, 0)) > ends[name]:
                event("labels.made_anew", level="warning", partition=name.partition, end=ends[name])
                self._judged[name] = self._snapped[name] = 0
        self._consumer.assign(names)
        self._seek(names)

    def _seek(self, names: Iterable[TopicPartition]) -> None:
        for name in names:
            self._consumer.seek(name, self._positions[name])

    async def _take(self, name: TopicPartition, records: Sequence[Record]) -> None:
        before = self.known.new, self.known.erased
        # Also when its label is not known any more: compaction may have taken it after the training had read it.
        snapped_end = self._snapped.get(name, 0)
        self.erased |= any(one.value is None and one.key and one.offset >= snapped_end for one in records)
        faults = take_labels(records, self.known, snapped_end=snapped_end, max_text_bytes=self._max_text_bytes)
        self._metrics.read(len(records))
        if (self.known.new, self.known.erased) != before:
            self.changed_s = self._clock.monotonic()
            self.waiting_s = self.changed_s if self.waiting_s is None else self.waiting_s
        refused = [
            (record, fault)
            for record, fault in zip(records, faults, strict=True)
            if fault is not None and record.offset >= self._judged[name]
        ]
        if refused:
            letters = [refusal(record, fault, self._keep) for record, fault in refused]
            await self._sender.send_batch(self._dead_letters, name.partition % self._letter_partitions, letters)
            self._metrics.refused(Counter(fault.code for _, fault in refused))
            event("labels.refused", level="warning", partition=name.partition, refused=len(refused))

    async def _commit(self, names: Collection[TopicPartition]) -> None:
        moved = {name: self._positions[name] for name in names if self._positions[name] > self._judged[name]}
        if not moved:
            return
        try:
            await self._consumer.commit(moved)
        except KafkaError as error:
            if not error.retriable:
                raise
            # The next commit says it too; until then a crash only repeats dead letters.
            event("labels.commit_failed", level="warning", error=str(error))
        self._judged.update(moved)
