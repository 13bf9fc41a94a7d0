"""Follow the answers, and choose requests that are worth a label. Answers never wait for it.

Chosen requests wait in a bounded queue. When it is full, the request with the largest margin is dropped. Requests of
the random slice are dropped last: the slice is a sample only while its texts don't decide which of them are missing.

The group's commit stays in front of every chosen request that is not done, so a successor chooses those again. The
topic of machine labels tells which of them were labelled meanwhile; they are not asked about twice.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Sequence

import msgspec

from headrace.core.clock import Clock
from headrace.core.selection import Why, Wish, wish_of
from headrace.kafka.interface import Cluster, Consumer, KafkaError, OffsetOutOfRangeError, Record, TopicPartition
from headrace.kafka.range_reader import read_texts
from headrace.kafka.retry import RETRY_S, patiently, started
from headrace.labeller.known_texts import words_of
from headrace.labeller.metrics import LabellerMetrics
from headrace.labeller.settings import LabellerSettings
from headrace.process.logs import event
from headrace_schemas.codec import decode_result
from headrace_schemas.errors import WireError
from headrace_schemas.headers import Headers, content_type
from headrace_schemas.paths import Decode
from headrace_schemas.records import ClassifyResult
from headrace_schemas.trace_context import trace_headers

CHUNK = 2000
FETCH_S = 0.5
LOOK_S = 30.0
MOST_AGAIN = 100_000
"""The most answers of a partition that a successor reads again because a request in front of them waits long."""
MOST_BYTES = 64 << 20
"""UTF-8 of the texts that wait."""


class Chosen(msgspec.Struct, frozen=True):
    """A request that is worth a label: its place, text, id, why, and whether it was answered without a label.

    ``words`` are those of :func:`~headrace.labeller.known_texts.words_of`, ``at`` is the offset of its answer,
    ``tried`` how often the teacher failed on it, and ``alone`` whether the teacher died over it or a neighbour, so that
    no other text is asked beside it. ``trace`` is the trace context of its answer, which its review takes over.
    """

    partition: int
    offset: int
    at: int
    text: str
    id: str | None
    wish: Wish
    abstained: bool
    words: bytes = b""
    tried: int = 0
    alone: bool = False
    trace: Headers = ()


class Waiting:
    """The queue of chosen requests, at most ``most`` of them and ``most_bytes`` of texts, the most valuable first."""

    def __init__(self, most: int, metrics: LabellerMetrics, most_bytes: int = MOST_BYTES) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._metrics = metrics
        self._heap: list[tuple[int, float, int, Chosen]] = []
        self._bytes = 0
        self._order = itertools.count()
        self._open: dict[int, set[int]] = {}
        """The answers of requests that wait or were taken and are not done, by partition."""

        self.came = 0
        """How many were put in, those that were put back too."""

    def __len__(self) -> int:
        return len(self._heap)

    def put(self, chosen: Chosen) -> None:
        """Add one. If there are too many, the least valuable is dropped."""
        self.came += 1
        rank = 0 if chosen.wish.why is Why.RANDOM else 1
        heapq.heappush(self._heap, (rank, chosen.wish.margin, next(self._order), chosen))
        self._bytes += _size(chosen)
        self._open.setdefault(chosen.partition, set()).add(chosen.at)
        while len(self._heap) > self._most or (self._bytes > self._most_bytes and len(self._heap) > 1):
            worst = max(self._heap)
            self._heap.remove(worst)
            heapq.heapify(self._heap)
            self._bytes -= _size(worst[3])
            self.done(worst[3])
            self._metrics.left("queue-full")
        self._metrics.waiting(len(self._heap))

    def take(self, count: int) -> list[Chosen]:
        """The ``count`` most valuable, or fewer if fewer wait. Put each back later, or report it done."""
        taken = [heapq.heappop(self._heap)[3] for _ in range(min(count, len(self._heap)))]
        self._bytes -= sum(map(_size, taken))
        self._metrics.waiting(len(self._heap))
        return taken

    def take_where(self, wanted: Callable[[Chosen], bool]) -> list[Chosen]:
        """All that are ``wanted``; as :meth:`take`."""
        taken = [entry[3] for entry in self._heap if wanted(entry[3])]
        if taken:
            self._heap = [entry for entry in self._heap if not wanted(entry[3])]
            heapq.heapify(self._heap)
            self._bytes -= sum(map(_size, taken))
            self._metrics.waiting(len(self._heap))
        return taken

    def done(self, chosen: Chosen) -> None:
        """``chosen`` was labelled or dropped."""
        self._open.get(chosen.partition, set()).discard(chosen.at)

    def first_open(self, partition: int, position: int) -> int:
        """The offset of the first answer that may have to be looked at again, at most ``position``."""
        return max(min(self._open.get(partition) or {position}), position - MOST_AGAIN)


def _size(chosen: Chosen) -> int:
    return len(chosen.text.encode("utf-8", "surrogatepass"))


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
        self._positions: dict[TopicPartition, int] = {}
        """Up to where answers were looked at."""
        self._answered: frozenset[int] = frozenset()
        """The partitions of the requests."""
        self._committed: dict[TopicPartition, int] = {}
        self._looked_s = 0.0
        self.follows = False
        """Whether it has found where to begin: it reads every answer from then on."""

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
                    if self._clock.monotonic() - self._looked_s > LOOK_S and await self._grown(consumer):
                        followed = False
                    if not followed and not (followed := await self._seek(consumer)):
                        await self._clock.sleep(LOOK_S)
                        continue
                    chunks = await consumer.fetch(max_records=CHUNK, timeout_s=FETCH_S)
                    for name, records in chunks.items():
                        await self._take(texts, name.partition, records)
                        self._positions[name] = records[-1].offset + 1
                    await self._commit(consumer)
                except OffsetOutOfRangeError as error:
                    event("labeller.answers_gone", level="warning", why=str(error))
                    self._positions.clear()
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

    async def _grown(self, consumer: Consumer) -> bool:
        """Whether there are partitions that are not followed."""
        self._looked_s = self._clock.monotonic()
        self._answered = await consumer.partitions_of(self._requests)
        return len(await consumer.partitions_of(self._results)) > len(consumer.assignment())

    async def _seek(self, consumer: Consumer) -> bool:
        self._answered = await consumer.partitions_of(self._requests)
        names = [TopicPartition(self._results, p) for p in sorted(await consumer.partitions_of(self._results))]
        if not names:
            return False
        begins, ends = await consumer.beginning_offsets(names), await consumer.end_offsets(names)
        # At this term's positions, else at the group's commits.
        known = {name: found.offset for name, found in (await consumer.committed(names)).items()} | self._positions
        begun = {name: _begin(known.get(name), begins[name], ends[name]) for name in names}
        consumer.assign(names)
        for name, position in begun.items():
            consumer.seek(name, position)
        self._positions, self._committed = begun, {}
        self.follows = True
        event("labeller.follows", topic=self._results, partitions=len(begun))
        return True

    async def _commit(self, consumer: Consumer) -> None:
        offsets = {
            name: self._waiting.first_open(name.partition, position) for name, position in self._positions.items()
        }
        if offsets != self._committed:
            await consumer.commit(offsets)
            self._committed = offsets

    async def _take(self, consumer: Consumer, partition: int, records: Sequence[Record]) -> None:
        """Choose of one partition's answers; they are in the partition of their requests."""
        wishes: dict[int, tuple[Wish, ClassifyResult, Record]] = {}
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
                wishes[answer.offset] = wish, answer, record
        self._metrics.seen(len(records))
        if partition not in self._answered:
            self._metrics.left("gone", len(wishes))
            return
        places = [(partition, offset) for offset in wishes]
        texts = await patiently(
            lambda: read_texts(consumer, self._requests, places, self._decode),
            doing="reading requests",
            clock=self._clock,
        )
        self._metrics.left("gone", len(wishes) - len(texts))
        for ((_, offset), text), words in zip(texts.items(), words_of(list(texts.values())), strict=True):
            wish, answer, record = wishes[offset]
            self._metrics.chosen(wish.why)
            self._waiting.put(
                Chosen(
                    partition,
                    offset,
                    record.offset,
                    text,
                    answer.id,
                    wish,
                    answer.label is None,
                    words,
                    trace=trace_headers(record.headers),
                )
            )


def _begin(position: int | None, begin: int, end: int) -> int:
    """Where to go on in a log from ``begin`` to ``end`` of which ``position`` is known, or nothing."""
    if position is None:
        return end
    # Retention overtook it, or it is of a log before this one, of which nothing was looked at.
    return position if begin <= position <= end else begin
