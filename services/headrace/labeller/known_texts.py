"""Which texts need no label any more: people labelled them, this teacher was asked, or they were erased.

The topics are the cache: classify.machine-labels tells what the teacher said under its present version, and
classify.labels what people said. A text is known by its key, so none is kept but the gold texts; a known text takes
some 200 bytes, whatever its length.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from headrace.core.clock import Clock
from headrace.core.text import label_name
from headrace.kafka.interface import Cluster, Consumer, KafkaError, OffsetOutOfRangeError, Record, TopicPartition
from headrace.kafka.range_reader import read_ranges
from headrace.kafka.retry import RETRY_S, patiently, started
from headrace.labeller.gold import GoldTexts
from headrace.process.logs import event
from headrace_schemas.codec import decode_label, decode_machine_label
from headrace_schemas.errors import WireError
from headrace_schemas.headers import content_type
from headrace_schemas.records import BarredText, MachineLabel, MachineLabelsRecord
from headrace_schemas.topics import machine_labels_key, text_key

CHUNK = 2000
LOOK_S = 30.0

Said = tuple[str, float]
"""What a teacher said of a text: a label and its score, to a hundredth."""


class KnownTexts:
    """Follows both topics. ``teacher`` is the version of the teacher that asks, ``classes`` are its labels."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        labels: str,
        machine_labels: str,
        teacher: str,
        classes: Sequence[str],
        gold: GoldTexts,
        max_text_bytes: int,
        clock: Clock,
    ) -> None:
        self._cluster = cluster
        self._labels = labels
        self._machine_labels = machine_labels
        self._teacher = teacher
        self._classes = frozenset(classes)
        self._gold = gold
        self._max_text_bytes = max_text_bytes
        self._clock = clock
        self._consumer: Consumer | None = None
        self._names: list[TopicPartition] = []
        self._looked_s = 0.0
        self._clear()

    def _clear(self) -> None:
        # Keys are kept as sixteen bytes each: what a stranger's key takes is not for the stranger to say.
        self._by_people: dict[bytes, bytes] = {}
        self._people: dict[bytes, int] = {}
        """How many labels of people each text has."""
        self._asked: dict[bytes, Said | None] = {}
        self._said: dict[Said, Said] = {}
        """Each answer once."""
        self._barred: set[bytes] = set()

    def needs_none(self, text: str) -> bool:
        """Whether ``text`` needs no label of this teacher."""
        key = _digits(text_key(text))
        return key in self._asked or key in self._barred or key in self._people

    def barred(self, text: str) -> bool:
        """Whether ``text`` was erased, and may be sent to nobody."""
        return _digits(text_key(text)) in self._barred

    def said(self, text: str) -> Said | None:
        """What this teacher said of ``text``, None where it was not asked, failed, or the text was erased."""
        key = _digits(text_key(text))
        return None if key in self._barred else self._asked.get(key)

    def take(self, label: MachineLabel) -> None:
        """Take in what the teacher said, or that it failed."""
        said = None
        if label.label in self._classes and label.scores:
            one = str(label.label), round(label.scores[0].score, 2)
            said = self._said.setdefault(one, one)
        self._asked[_digits(text_key(label.text))] = said

    async def start(self) -> None:
        """Read both topics up to their present ends. Raises KafkaErrors that can't be mended here."""
        self._consumer = await started(self._cluster.consumer, doing="connecting to read labels", clock=self._clock)
        await patiently(self._read, doing="reading labels", clock=self._clock)

    async def _read(self) -> None:
        consumer = self._following()
        self._clear()
        names = await self._partitions(consumer)
        begins, ends = await consumer.beginning_offsets(names), await consumer.end_offsets(names)
        async for records in read_ranges(consumer, begins, ends, chunk=CHUNK):
            for record in records:
                self._take(record)
        consumer.assign(names)
        for name in names:
            consumer.seek(name, ends[name])
        self._names = names
        self._looked_s = self._clock.monotonic()

    async def _partitions(self, consumer: Consumer) -> list[TopicPartition]:
        return [
            TopicPartition(topic, partition)
            for topic in (self._labels, self._machine_labels)
            for partition in sorted(await consumer.partitions_of(topic))
        ]

    def _following(self) -> Consumer:
        if self._consumer is None:
            raise RuntimeError("it was not started")
        return self._consumer

    async def stop(self) -> None:
        if self._consumer is not None:
            await self._consumer.stop()

    async def look(self, timeout_s: float) -> bool:
        """Take in what comes within ``timeout_s``; whether that was all that there is now."""
        consumer = self._following()
        try:
            if self._clock.monotonic() - self._looked_s > LOOK_S:
                self._looked_s = self._clock.monotonic()
                if len(await self._partitions(consumer)) > len(self._names):
                    await self._read()
            chunks = await consumer.fetch(max_records=CHUNK, timeout_s=timeout_s)
        except OffsetOutOfRangeError as error:
            event("labeller.labels_gone", level="warning", why=str(error))
            await patiently(self._read, doing="reading labels", clock=self._clock)
            return False
        except KafkaError as error:
            if not error.retriable:
                raise
            event("labeller.waits", level="debug", error=str(error))
            await self._clock.sleep(RETRY_S)
            return False
        for records in chunks.values():
            for record in records:
                self._take(record)
        return sum(map(len, chunks.values())) < CHUNK

    def _take(self, record: Record) -> None:
        if record.key and record.discarded is None:
            take = self._take_label if record.topic == self._labels else self._take_machine_label
            take(record.key, record)

    def _take_label(self, key: bytes, record: Record) -> None:
        try:
            label = decode_label(record.value, content_type(record.headers), limit=self._max_text_bytes)
        except WireError:  # the trainer dead-letters it
            return
        key = hashlib.blake2b(key, digest_size=16).digest()
        self._forget_label(key)
        if label is not None:
            known = _digits(text_key(label.text))
            self._by_people[key] = known
            self._people[known] = self._people.get(known, 0) + 1
            self._gold.put(key, label.text, label_name(label.label))

    def _forget_label(self, key: bytes) -> None:
        self._gold.remove(key)
        known = self._by_people.pop(key, None)
        if known is not None:
            self._people[known] -= 1
            if not self._people[known]:
                del self._people[known]

    def _take_machine_label(self, key: bytes, record: Record) -> None:
        try:
            found = decode_machine_label(record.value, content_type(record.headers), limit=self._max_text_bytes)
        except WireError as error:
            event("machine_labels.rubbish", level="warning", offset=record.offset, error=str(error))
            return
        if found is not None and not _kept_by(found, key):
            event("machine_labels.rubbish", level="warning", offset=record.offset, error="its key is another record's")
            return
        match found:
            case MachineLabel() if found.teacher == self._teacher:
                self.take(found)
            case BarredText() if text := _digits(found.text_key):
                self._barred.add(text)
            case None:
                kind, _, rest = key.decode("ascii", "replace").partition("/")
                named, _, teacher = rest.partition("/")
                if kind == "label" and teacher == self._teacher:
                    self._asked.pop(_digits(named), None)
                elif kind == "barred":
                    self._barred.discard(_digits(named))


def _digits(key: str) -> bytes:
    """The sixteen bytes that a text's key writes as digits; empty for what is none."""
    try:
        digits = bytes.fromhex(key)
    except ValueError:
        return b""
    return digits if len(digits) == 16 else b""


def _kept_by(record: MachineLabelsRecord, key: bytes) -> bool:
    try:
        return machine_labels_key(record) == key
    except WireError:
        return False
