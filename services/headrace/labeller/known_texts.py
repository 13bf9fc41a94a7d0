"""Which texts need no label any more: people labelled them, this teacher was asked, or they were erased.

The topics are the cache: classify.machine-labels tells what the teacher was asked under its present version, and
classify.labels what people said. A text is known by its key, so none is kept but the gold texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from headrace.core.clock import Clock
from headrace.core.text import label_name
from headrace.kafka.interface import Cluster, Consumer, KafkaError, Record, TopicPartition
from headrace.kafka.retry import RETRY_S, patiently, started
from headrace.labeller.gold import GoldTexts
from headrace.process.logs import event
from headrace_schemas.codec import decode_label, decode_machine_label
from headrace_schemas.errors import WireError
from headrace_schemas.headers import content_type
from headrace_schemas.records import BarredText, MachineLabel
from headrace_schemas.topics import text_key

CHUNK = 2000
FETCH_S = 0.5


class KnownTexts:
    """Follows both topics. ``teacher`` is the version of the teacher that asks."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        labels: str,
        machine_labels: str,
        teacher: str,
        gold: GoldTexts,
        max_text_bytes: int,
        clock: Clock,
    ) -> None:
        self._cluster = cluster
        self._labels = labels
        self._machine_labels = machine_labels
        self._teacher = teacher
        self._gold = gold
        self._max_text_bytes = max_text_bytes
        self._clock = clock
        self._consumer: Consumer | None = None
        self._names: list[TopicPartition] = []
        self._by_people: dict[bytes, str] = {}
        self._people: dict[str, int] = {}
        """How many labels of people each text has."""
        self._asked: set[str] = set()
        self._barred: set[str] = set()

    def needs_none(self, text: str) -> bool:
        """Whether ``text`` needs no label of this teacher."""
        key = text_key(text)
        return key in self._asked or key in self._barred or key in self._people

    def asked(self, text: str) -> None:
        """Take in that the teacher was asked about ``text``."""
        self._asked.add(text_key(text))

    async def start(self) -> None:
        """Read both topics up to their present ends. Raises KafkaErrors that can't be mended here."""
        self._consumer = await started(self._cluster.consumer, doing="connecting to read labels", clock=self._clock)
        consumer = self._consumer

        async def begin() -> dict[TopicPartition, int]:
            names = [
                TopicPartition(topic, partition)
                for topic in (self._labels, self._machine_labels)
                for partition in sorted(await consumer.partitions_of(topic))
            ]
            begins, ends = await consumer.beginning_offsets(names), await consumer.end_offsets(names)
            consumer.assign(names)
            for name in names:
                consumer.seek(name, begins[name])
            self._names = names
            return ends

        ends = await patiently(begin, doing="asking for the first offsets", clock=self._clock)
        while [name for name in self._names if await consumer.position(name) < ends[name]]:
            await self.look(FETCH_S)

    async def stop(self) -> None:
        if self._consumer is not None:
            await self._consumer.stop()

    async def look(self, timeout_s: float) -> None:
        """Take in what comes within ``timeout_s``."""
        if self._consumer is None:
            raise RuntimeError("it was not started")
        try:
            chunks = await self._consumer.fetch(max_records=CHUNK, timeout_s=timeout_s)
        except KafkaError as error:
            if not error.retriable:
                raise
            event("labeller.waits", level="debug", error=str(error))
            await self._clock.sleep(RETRY_S)
            return
        self._take(chunks)

    def _take(self, chunks: Mapping[TopicPartition, Sequence[Record]]) -> None:
        for name, records in chunks.items():
            take = self._take_label if name.topic == self._labels else self._take_machine_label
            for record in records:
                if record.key and record.discarded is None:
                    take(record.key, record)

    def _take_label(self, key: bytes, record: Record) -> None:
        try:
            label = decode_label(record.value, content_type(record.headers), limit=self._max_text_bytes)
        except WireError:  # the trainer dead-letters it
            return
        self._forget_label(key)
        if label is not None:
            known = text_key(label.text)
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
        match found:
            case MachineLabel() if found.teacher == self._teacher:
                self._asked.add(text_key(found.text))
            case BarredText():
                self._barred.add(found.text_key)
            case None:
                kind, _, rest = key.decode("ascii", "replace").partition("/")
                text, _, teacher = rest.partition("/")
                if kind == "label" and teacher == self._teacher:
                    self._asked.discard(text)
                elif kind == "barred":
                    self._barred.discard(text)
