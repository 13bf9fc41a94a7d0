"""Which texts need no label any more: people labelled them, this teacher was asked, or they were erased.

The topics are the cache: classify.machine-labels holds what the teacher said under its present version, classify.labels
what people said, and classify.reviews which requests people reviewed. Texts that people labelled or erased are compared
by their words, as the trainer does, so another spelling is known too; those that the teacher labelled are compared as
they are. Only gold texts are kept; a known text takes some 400 bytes, whatever its length.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Sequence

from headrace.core.clock import Clock
from headrace.core.label_rules import Rules, learnt_as
from headrace.core.text import label_name
from headrace.kafka.interface import Cluster, Consumer, KafkaError, OffsetOutOfRangeError, Record, TopicPartition
from headrace.kafka.range_reader import read_ranges
from headrace.kafka.retry import RETRY_S, patiently, started
from headrace.labeller.gold import GoldTexts
from headrace.learning.data.validation import KEY_BYTES, NO_WORDS, text_keys
from headrace.process.logs import event
from headrace_schemas.codec import decode_label, decode_machine_label, decode_review
from headrace_schemas.errors import WireError
from headrace_schemas.headers import content_type
from headrace_schemas.records import BarredText, LabelledText, MachineLabel, MachineLabelsRecord
from headrace_schemas.topics import machine_labels_key, reviewed_place, text_key

CHUNK = 2000
LOOK_S = 30.0
PERSON = "person"
LONGEST_LABEL = 1000
"""Characters of a label of people that is kept to answer by."""
MOST_REVIEWED = 100_000
"""Places of requests that people reviewed which are kept, the last ones."""

ERASED = LabelledText(text="", label="")
"""Stands for a tombstone."""

Said = tuple[str, float]
"""What a teacher said of a text: a label and its score, to a hundredth."""


def words_of(texts: Sequence[str]) -> list[bytes]:
    """Sixteen bytes for each text: equal for texts of equal words, as the trainer compares them.

    A text without words has those of its own key.
    """
    pairs = zip(texts, text_keys(texts), strict=True)
    return [_digits(text_key(text)) if key == NO_WORDS else key[:KEY_BYTES] for text, key in pairs]


class KnownTexts:
    """Follows the topics. ``teacher`` is the version of the teacher that asks, ``classes`` are its labels; ``results``
    is the topic whose answers are reviewed.
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        labels: str,
        machine_labels: str,
        reviews: str,
        results: str,
        teacher: str,
        classes: Sequence[str],
        gold: GoldTexts,
        max_text_bytes: int,
        clock: Clock,
    ) -> None:
        self._cluster = cluster
        self._labels = labels
        self._machine_labels = machine_labels
        self._reviews = reviews
        self._results = results
        self._teacher = teacher
        self._classes = frozenset(classes)
        self._gold = gold
        self._max_text_bytes = max_text_bytes
        self._clock = clock
        self._consumer: Consumer | None = None
        self._followed: list[TopicPartition] = []
        self.rules: Rules = {}
        """What labels are learnt as by now; set from outside."""
        self._looked_s = 0.0
        self._clear()

    def _clear(self) -> None:
        # Keys are kept as sixteen bytes each, so that a stranger's long key takes no more memory.
        self._by_people: dict[bytes, tuple[bytes, str]] = {}
        self._people: dict[bytes, dict[str, int]] = {}
        """How often people gave which labels to texts of these words."""
        self._names: dict[str, str] = {}
        """Each label of people once."""
        self._asked: dict[bytes, Said | None] = {}
        self._said: dict[Said, Said] = {}
        """Each answer once."""
        self._barred: set[bytes] = set()
        self._reviewed: OrderedDict[tuple[int, int], None] = OrderedDict()
        self.told = 0
        """How many labels of people were read."""

    def needs_none(self, text: str) -> bool:
        """Whether ``text`` needs no label of this teacher."""
        (words,) = words_of([text])
        return words in self._people or _digits(text_key(text)) in self._asked or self.barred(text)

    def barred(self, text: str) -> bool:
        """Whether ``text``, or one of the same words, was erased, and may be sent to nobody."""
        return bool(self._barred) and not self._barred.isdisjoint((_digits(text_key(text)), *words_of([text])))

    def said(self, text: str) -> Said | None:
        """What this teacher said of ``text``, None where it was not asked, failed, or the text was erased."""
        return None if self.barred(text) else self._asked.get(_digits(text_key(text)))

    def people_say(self, words: bytes) -> str | None:
        """The label that people gave to texts of these words, by the rules; None where they gave none or more than
        one, or it is no longer given.
        """
        given = {learnt_as(name, self.rules) for name in self._people.get(words, ())}
        return (given.pop() or None) if len(given) == 1 and words not in self._barred else None

    def reviewed(self, partition: int, offset: int) -> bool:
        """Whether a person reviewed the request there."""
        return (partition, offset) in self._reviewed

    @property
    def review_partitions(self) -> int:
        """How many partitions the topic of reviews has."""
        return sum(name.topic == self._reviews for name in self._followed)

    def take(self, label: MachineLabel) -> None:
        """Take in what the teacher said, or that it failed."""
        said = None
        if label.label in self._classes and label.scores:
            one = str(label.label), round(label.scores[0].score, 2)
            said = self._said.setdefault(one, one)
        self._asked[_digits(text_key(label.text))] = said

    async def start(self) -> None:
        """Read the topics up to their present ends. Raises KafkaErrors that can't be mended here."""
        # The first call compiles, which takes seconds where nothing is cached; the group is not to miss this member.
        await asyncio.to_thread(words_of, ["a"])
        self._consumer = await started(self._cluster.consumer, doing="connecting to read labels", clock=self._clock)
        await patiently(self._read, doing="reading labels", clock=self._clock)

    async def _read(self) -> None:
        consumer = self._following()
        self._clear()
        names = await self._partitions(consumer)
        begins, ends = await consumer.beginning_offsets(names), await consumer.end_offsets(names)
        async for records in read_ranges(consumer, begins, ends, chunk=CHUNK):
            self._take(records)
        consumer.assign(names)
        for name in names:
            consumer.seek(name, ends[name])
        self._followed = names
        self._looked_s = self._clock.monotonic()

    async def _partitions(self, consumer: Consumer) -> list[TopicPartition]:
        return [
            TopicPartition(topic, partition)
            for topic in (self._labels, self._machine_labels, self._reviews)
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
        """Take in the records that come within ``timeout_s``. Returns whether these were all that there are now."""
        consumer = self._following()
        try:
            if self._clock.monotonic() - self._looked_s > LOOK_S:
                self._looked_s = self._clock.monotonic()
                if len(await self._partitions(consumer)) > len(self._followed):
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
            self._take(records)
        return sum(map(len, chunks.values())) < CHUNK

    def _take(self, records: Sequence[Record]) -> None:
        """Take in ``records``, which are in order for each partition."""
        whole = [record for record in records if record.key and record.discarded is None]
        self._take_labels([record for record in whole if record.topic == self._labels])
        for record in whole:
            if record.topic == self._machine_labels:
                self._take_machine_label(record)
            elif record.topic == self._reviews:
                self._take_review(record)

    def _take_labels(self, records: Sequence[Record]) -> None:
        labels = [(record.key or b"", label) for record in records if (label := self._label(record)) is not None]
        words = iter(words_of([label.text for _, label in labels if label is not ERASED]))
        for key, label in labels:
            digest = hashlib.blake2b(key, digest_size=KEY_BYTES).digest()
            self._forget_label(digest)
            if label is ERASED:
                continue
            name, of = label_name(label.label), next(words)
            self._gold.put(digest, label.text, name)
            # A stranger's long label takes no more memory either.
            name = self._names.setdefault(name, name) if len(name) <= LONGEST_LABEL else ""
            given = self._people.setdefault(of, {})
            given[name] = given.get(name, 0) + 1
            self._by_people[digest] = of, name
            self.told += 1

    def _label(self, record: Record) -> LabelledText | None:
        """The label; ERASED for a tombstone, None for a record that is no label, which the trainer dead-letters."""
        try:
            label = decode_label(record.value, content_type(record.headers), limit=self._max_text_bytes)
        except WireError:
            return None
        return ERASED if label is None else label

    def _forget_label(self, digest: bytes) -> None:
        self._gold.remove(digest)
        words, name = self._by_people.pop(digest, (b"", ""))
        given = self._people.get(words)
        if given is not None:
            given[name] -= 1
            if not given[name]:
                del given[name]
            if not given:
                del self._people[words]

    def _take_review(self, record: Record) -> None:
        if record.value is None:  # somebody took a review back
            place = reviewed_place(record.key)
            if place is not None and place[0] == self._results:
                self._reviewed.pop(place[1:], None)
            return
        try:
            review = decode_review(record.value, content_type(record.headers))
        except WireError as error:
            event("review.unreadable", level="warning", offset=record.offset, error=str(error))
            return
        if review is not None and review.results == self._results and review.origin == PERSON:
            self._reviewed[review.partition, review.offset] = None
            if len(self._reviewed) > MOST_REVIEWED:
                self._reviewed.popitem(last=False)

    def _take_machine_label(self, record: Record) -> None:
        key = record.key or b""
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
    return digits if len(digits) == KEY_BYTES else b""


def _kept_by(record: MachineLabelsRecord, key: bytes) -> bool:
    try:
        return machine_labels_key(record) == key
    except WireError:
        return False
