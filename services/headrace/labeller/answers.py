"""Follow the answers, and choose requests that are worth a label. Answers never wait for it.

What is chosen waits in a bounded queue. When that is full, the request of the largest margin is left; a request of the
random slice is left last, because the slice is a sample only as long as none is missing for what it says.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Sequence

import msgspec

from headrace.core.clock import Clock
from headrace.core.selection import Why, Wish, wish_of
from headrace.kafka.interface import Cluster, Consumer, KafkaError, OffsetOutOfRangeError, Record, TopicPartition
from headrace.kafka.range_reader import read_texts
from headrace.kafka.retry import RETRY_S, patiently, started
from headrace.labeller.metrics import LabellerMetrics
from headrace.labeller.settings import LabellerSettings
from headrace.process.logs import event
from headrace_schemas.codec import decode_result
from headrace_schemas.errors import WireError
from headrace_schemas.headers import content_type
from headrace_schemas.paths import Decode
from headrace_schemas.records import ClassifyResult

CHUNK = 2000
FETCH_S = 0.5
LOOK_S = 30.0


class Chosen(msgspec.Struct, frozen=True):
    """A request that is worth a label: its place, text, id, why, and whether it was answered without a label."""

    partition: int
    offset: int
    text: str
    id: str | None
    wish: Wish
    abstained: bool


class Waiting:
    """The queue of what is chosen, at most ``most`` requests, the most worth first."""

    def __init__(self, most: int, metrics: LabellerMetrics) -> None:
        self._most = most
        self._metrics = metrics
        self._heap: list[tuple[int, float, int, Chosen]] = []
        self._order = itertools.count()

    def __len__(self) -> int:
        return len(self._heap)

    def put(self, chosen: Chosen) -> None:
        """Add one; where there are too many, the least worth is left."""
        rank = 0 if chosen.wish.why is Why.RANDOM else 1
        heapq.heappush(self._heap, (rank, chosen.wish.margin, next(self._order), chosen))
        if len(self._heap) > self._most:
            self._heap.remove(max(self._heap))
            heapq.heapify(self._heap)
            self._metrics.left("queue-full")
        self._metrics.waiting(len(self._heap))

    def take(self, count: int) -> list[Chosen]:
        """The ``count`` that are most worth, fewer where fewer wait."""
        taken = [heapq.heappop(self._heap)[3] for _ in range(min(count, len(self._heap)))]
        self._metrics.waiting(len(self._heap))
        return taken


class AnswersReader:
    """Reads the results topic from the group's commit, or from its present end, into ``waiting``."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        requests: str,
        results: str,
        settings: LabellerSettings,
        decode: Decode,
        waiting: Waiting,
        clock: Clock,
        metrics: LabellerMetrics,
    ) -> None:
        self._cluster = cluster
        self._requests = requests
        self._results = results
        self._settings = settings
        self._decode = decode
        self._waiting = waiting
        self._clock = clock
        self._metrics = metrics

    async def run(self) -> None:
        """Follow until cancelled. Raises KafkaErrors that can't be mended here."""
        consumer = await started(
            lambda: self._cluster.consumer(group=self._settings.group), doing="following the answers", clock=self._clock
        )
        texts = await started(self._cluster.consumer, doing="reading requests", clock=self._clock)
        followed = False
        try:
            while True:
                try:
                    if not followed and not (followed := await self._seek(consumer)):
                        await self._clock.sleep(LOOK_S)
                        continue
                    chunks = await consumer.fetch(max_records=CHUNK, timeout_s=FETCH_S)
                    for name, records in chunks.items():
                        await self._take(texts, name.partition, records)
                    if chunks:
                        await consumer.commit({name: records[-1].offset + 1 for name, records in chunks.items()})
                except OffsetOutOfRangeError as error:
                    event("labeller.answers_gone", level="warning", why=str(error))
                    followed = False
                except KafkaError as error:
                    if not error.retriable:
                        raise
                    event("labeller.waits", level="debug", error=str(error))
                    followed = False
                    await self._clock.sleep(RETRY_S)
        finally:
            await consumer.stop()
            await texts.stop()

    async def _seek(self, consumer: Consumer) -> bool:
        names = [TopicPartition(self._results, p) for p in sorted(await consumer.partitions_of(self._results))]
        if not names:
            return False
        begins, ends = await consumer.beginning_offsets(names), await consumer.end_offsets(names)
        consumer.assign(names)
        for name in names:
            committed = await consumer.committed(name)
            # A commit outside of the log is of a topic before this one, or was overtaken by retention.
            known = committed is not None and begins[name] <= committed <= ends[name]
            consumer.seek(name, committed if known and committed is not None else ends[name])
        return True

    async def _take(self, consumer: Consumer, partition: int, records: Sequence[Record]) -> None:
        """Choose of one partition's answers; they are in the partition of their requests."""
        wishes: dict[int, tuple[Wish, ClassifyResult]] = {}
        for record in records:
            try:
                answer = decode_result(record.value, content_type(record.headers))
            except WireError as error:
                event("labeller.rubbish", level="warning", offset=record.offset, error=str(error))
                continue
            wish = wish_of(
                answer,
                topic=self._requests,
                partition=partition,
                random=self._settings.random,
                least_margin=self._settings.least_margin,
                abstained=self._settings.abstained,
            )
            if wish is not None:
                wishes[answer.offset] = wish, answer
        self._metrics.seen(len(records))
        places = [(partition, offset) for offset in wishes]
        texts = await patiently(
            lambda: read_texts(consumer, self._requests, places, self._decode),
            doing="reading requests",
            clock=self._clock,
        )
        self._metrics.left("gone", len(wishes) - len(texts))
        for (_, offset), text in texts.items():
            wish, answer = wishes[offset]
            self._metrics.chosen(wish.why)
            self._waiting.put(Chosen(partition, offset, text, answer.id, wish, answer.label is None))
