"""Follow the topic of teachers' labels: whose labels there are, what changed, and what a training may learn from.

The topic may be missing, or closed to this trainer: then trainings are of people's labels alone. What can't be used is
counted and passed over; the labels of people are what a trainer answers for.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from headrace.core.clock import Clock
from headrace.core.label_rules import Rules, learnt_as
from headrace.core.text import label_name, printable
from headrace.kafka.interface import (
    Consumer,
    KafkaError,
    NotAuthorizedError,
    OffsetOutOfRangeError,
    Record,
    TopicPartition,
)
from headrace.learning.data.machine_labels import BARRED, decode, is_barred, machine_label_by_rules, scores_of
from headrace.learning.data.validation import KEY_BYTES, NO_WORDS, KnownLabels, text_keys
from headrace.learning.distributed.job import MachineSource
from headrace.process.logs import Reminder, event
from headrace.trainer.metrics import TrainerMetrics
from headrace.trainer.settings import MACHINE, PERSON, TrainerSettings
from headrace_schemas.records import BarredText, MachineLabel, OffsetRange

CHUNK = 2000
MOST_CHUNKS = 20
"""So many are taken in one look, so that people's labels are not kept waiting by a busy labeller."""
LOOK_FOR_PARTITIONS_S = 30.0
NAMED = 5


class Teachers(msgspec.Struct, frozen=True):
    """The teachers' versions that a training learns from, with what a row of each counts; or ``why`` it learns from
    none although there are labels, in words for people.
    """

    weights: Mapping[str, float]
    why: str | None = None


def chosen_teachers(counts: Mapping[str, int], settings: TrainerSettings) -> Teachers:
    """Of the teachers that have ``counts`` labels those that ``settings`` allow. Several are never mixed untold."""
    if not counts:
        return Teachers({})
    named = settings.teachers or tuple(counts)
    found = sorted(frozenset(named) & counts.keys())
    there = ", ".join(f"{printable(name)} ({counts[name]:,})" for name in sorted(counts)[:NAMED])
    more = f" and {len(counts) - NAMED:,} more" if len(counts) > NAMED else ""
    if not found:
        return Teachers({}, f"trainer.teachers names none of the teachers that have labels: {there}{more}")
    if len(found) > 1 and not settings.teachers:
        return Teachers(
            {},
            f"labels of {len(counts):,} versions of teachers are there, and versions are mixed only where "
            f"trainer.teachers names them: {there}{more}",
        )
    weights = {name: weight_of(name, settings.sources) for name in found}
    return Teachers({name: weight for name, weight in weights.items() if weight})


def weight_of(teacher: str, sources: Mapping[str, float]) -> float:
    """What a row of ``teacher`` counts beside one of a person, by trainer.sources."""
    return sources.get(teacher, sources.get(MACHINE, 1.0)) / sources.get(PERSON, 1.0)


class _Known(msgspec.Struct, frozen=True):
    teacher: str
    text: bytes
    label: str


class MachineLabelsReader:
    """Reads all partitions of ``topic`` by ``consumer``, which is started and belongs to no group.

    ``snapshot`` are the ranges of the last training: what is behind their ends is new. ``rules`` say what labels are
    learnt as. Takes some 500 bytes a label.
    """

    def __init__(
        self,
        consumer: Consumer,
        *,
        topic: str,
        snapshot: Sequence[OffsetRange],
        settings: TrainerSettings,
        rules: Rules,
        clock: Clock,
        metrics: TrainerMetrics,
    ) -> None:
        self._consumer = consumer
        self._topic = topic
        self._settings = settings
        self._rules = rules
        self._allowed = frozenset(learnt_as(label_name(label), rules) or "" for label in settings.labels)
        self._clock = clock
        self._metrics = metrics
        self._reminder = Reminder()
        self._closed = False
        self._looked_s: float | None = None
        self._snapped = {TopicPartition(topic, one.partition): one.end for one in snapshot}
        self._forget()

    def _forget(self) -> None:
        self._positions: dict[TopicPartition, int] = {}
        self._known: dict[bytes, _Known] = {}
        self._barred: set[str] = set()
        self._counts: Counter[str] = Counter()
        self._new: set[bytes] = set()
        self.erased = False
        """Whether a label was erased, or a text barred, behind the last training's snapshot."""

    @property
    def teachers(self) -> Teachers:
        """Whose labels a training would learn from now."""
        return chosen_teachers(self._counts, self._settings)

    def usable(self, teachers: Teachers) -> int:
        """How many labels of ``teachers`` there are, those of texts that people labelled too among them."""
        return sum(self._counts[name] for name in teachers.weights)

    def new(self, teachers: Teachers) -> int:
        """How many of them are in no snapshot."""
        if not teachers.weights:
            return 0
        return sum(known.teacher in teachers.weights for key in self._new if (known := self._known.get(key)))

    def disagreements(self, people: KnownLabels) -> int:
        """How many labels are others than those that people gave the same texts."""
        pairs = ((people.learnt(known.text), known.label) for known in self._known.values())
        return sum(true is not None and true != label for true, label in pairs)

    def source(self, teachers: Teachers, ranges: tuple[OffsetRange, ...]) -> MachineSource | None:
        """What a training of the snapshot ``ranges`` reads; None where it learns from no teacher."""
        if not teachers.weights or not ranges:
            return None
        return MachineSource(topic=self._topic, ranges=ranges, teachers=dict(teachers.weights))

    async def stop(self) -> None:
        await self._consumer.stop()

    async def look(self) -> None:
        """Take in what is there, and wait for nothing; an error that can be retried is left to the next look."""
        try:
            for _ in range(MOST_CHUNKS):
                if not await self._read(0.0):
                    break
        except KafkaError as error:
            if not error.retriable:
                raise
            event("machine_labels.waits", level="debug", error=str(error))

    async def catch_up(self) -> None:
        """Take in every label up to the ends as they are now."""
        await self._look_for_partitions()
        ends = await self._consumer.end_offsets(list(self._positions))
        while behind := [name for name, end in ends.items() if self._positions.get(name, end) < end]:
            before = dict(self._positions)
            await self._read(0.5)
            for name in behind:
                if self._positions.get(name) == before[name]:
                    # Only offsets without a record may be left.
                    self._positions[name] = max(before[name], await self._consumer.position(name))

    async def freeze(self) -> tuple[OffsetRange, ...]:
        """The ranges of a snapshot of all that was read; what is read from now on is new to it."""
        names = sorted(self._positions)
        begins = await self._consumer.beginning_offsets(names)
        self._snapped = {name: self._positions[name] for name in names}
        self._new.clear()
        self.erased = False
        return tuple(
            OffsetRange(name.partition, min(begins[name], self._positions[name]), self._positions[name])
            for name in names
        )

    async def _read(self, timeout_s: float) -> bool:
        """Whether anything came within ``timeout_s``."""
        if self._looked_s is None or self._clock.monotonic() - self._looked_s >= LOOK_FOR_PARTITIONS_S:
            await self._look_for_partitions()
        if not self._positions:
            return False
        try:
            chunks = await self._consumer.fetch(max_records=CHUNK, timeout_s=timeout_s)
        except OffsetOutOfRangeError as error:
            # It was cut or made anew, so all is read again.
            event("machine_labels.read_again", level="warning", why=str(error))
            self._consumer.assign(())
            self._forget()
            self._snapped, self._looked_s = {}, None
            return False
        except KafkaError:
            self._seek()
            raise
        for name, records in chunks.items():
            self._take(name, records)
            self._positions[name] = records[-1].offset + 1
        return bool(chunks)

    async def _look_for_partitions(self) -> None:
        self._looked_s = self._clock.monotonic()
        if self._closed:
            return
        try:
            names = [TopicPartition(self._topic, n) for n in sorted(await self._consumer.partitions_of(self._topic))]
            fresh = [name for name in names if name not in self._positions]
            if not fresh:
                return
            begins, ends = await self._consumer.beginning_offsets(fresh), await self._consumer.end_offsets(fresh)
        except NotAuthorizedError as error:
            self._closed = True
            why = f"{error}; `headrace topics acl` prints the rights that a trainer needs"
            event("machine_labels.closed", level="warning", topic=self._topic, why=why)
            return
        self._positions.update(begins)
        for name in fresh:
            if self._snapped.get(name, 0) > ends[name]:
                self._snapped[name] = 0
        self._consumer.assign(names)
        self._seek()

    def _seek(self) -> None:
        for name, position in self._positions.items():
            self._consumer.seek(name, position)

    def _take(self, name: TopicPartition, records: Sequence[Record]) -> None:
        contents = [decode(record, self._settings.max_text_bytes) for record in records]
        keys = iter(text_keys([one.text for one in contents if isinstance(one, MachineLabel)]))
        snapped_end = self._snapped.get(name, 0)
        refused: Counter[str] = Counter()
        for record, content in zip(records, contents, strict=True):
            is_new = record.offset >= snapped_end
            self._remove(record.key or b"")
            match content:
                case MachineLabel():
                    why = self._put(record.key or b"", content, next(keys), is_new=is_new)
                    if why is not None:
                        refused[why] += 1
                case str():
                    refused[content] += 1
                case BarredText():
                    self._barred.add(content.text_key)
                    self.erased |= is_new
                case None:
                    self._barred.discard((record.key or b"").removeprefix(b"barred/").decode("ascii", "replace"))
                    self.erased |= is_new and bool(record.key)
        self._metrics.machine_refused(refused)
        if refused and self._reminder.due(", ".join(sorted(refused)), self._clock.monotonic()):
            event("machine_labels.refused", level="warning", partition=name.partition, reasons=dict(refused))
        self._metrics.machine_labels(self._counts.total(), len(self._counts))

    def _put(self, record_key: bytes, label: MachineLabel, key: bytes, *, is_new: bool) -> str | None:
        learnt = machine_label_by_rules(label, self._rules)
        if learnt is None:
            # Its class is no longer given, for which the teacher is not to blame: it is not counted as refused.
            return None
        scores = scores_of(learnt, self._allowed)
        if isinstance(scores, str):
            return scores
        if key == NO_WORDS:
            return "empty-text"
        if is_barred(label.text, key, self._barred):
            return BARRED
        teacher, name = sys.intern(label.teacher), sys.intern(label_name(learnt.label or ""))
        self._known[record_key] = _Known(teacher, key[:KEY_BYTES], name)
        self._counts[teacher] += 1
        if is_new:
            self._new.add(record_key)
        return None

    def _remove(self, record_key: bytes) -> None:
        known = self._known.pop(record_key, None)
        if known is None:
            return
        self._new.discard(record_key)
        self._counts[known.teacher] -= 1
        if not self._counts[known.teacher]:
            del self._counts[known.teacher]
