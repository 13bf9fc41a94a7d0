"""Reads the answers that somebody waits for: one consumer without a group, over the partitions that are needed.

Which partitions a gateway owns says only where it publishes. It reads those that it owns and those in which somebody
waits, whoever owns them by now: texts with a key go to the partition of their key, and a partition that the group takes
away while calls wait is read on until they are answered. So nothing depends on when the group moves a partition.

Reading begins at the end of a partition, before anything is published there, so no answer that is waited for is missed
and no place has to be kept: whoever waits for an answer of before its process looks it up (``lookup.py``).
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from headrace.client.arguments import AnswerLogError
from headrace.client.reading import LogWatch, begins_after_retention, read_result
from headrace.core.answer_log import PartitionReader
from headrace.core.clock import Clock
from headrace.gateway.batches import LOST, PENDING, UNKNOWN, Batch, Unanswered
from headrace.kafka.interface import (
    Cluster,
    KafkaError,
    OffsetOutOfRangeError,
    Outgoing,
    Record,
    TopicPartition,
    UnknownTopicError,
)
from headrace.process.logs import event
from headrace_schemas.records import ClassifyResult

CHUNK = 2000
FETCH_S = 0.1
"""A partition that is needed is read at the next fetch, so a fetch waits no longer than this."""
RETRY_S = 0.2
LINGER_S = 60.0
"""How long a partition is still read after its last use, because the next use is likely."""
MOST_EARLY = 100_000
"""The most answers of a partition that are kept during a publish to it: they may come before its acknowledgement."""
WATCH_S = 1.0
SMOOTHING = 0.3
STALLED_S = 60.0

_Waiting = tuple[Batch, int, int | None]


class _Part:
    """One results partition that is read."""

    __slots__ = (
        "before", "counted", "early", "highest", "moved_s", "overflowed", "position", "publishing", "rate", "reader",
        "sent", "used_s", "waiting",
    )  # fmt: skip

    def __init__(self, position: int, now_s: float) -> None:
        self.position = position
        self.reader = PartitionReader()
        self.highest: int | None = None
        """The highest request that was seen answered here."""
        self.waiting: dict[int, list[_Waiting]] = {}
        self.publishing = 0
        self.before: int | None = None
        """``highest`` when the publish under way began: its requests lie behind it."""
        self.early: dict[int, ClassifyResult] = {}
        self.overflowed = False
        self.used_s = now_s
        self.sent = -1
        """The last request that this gateway published here."""
        self.rate = 0.0
        self.counted: int | None = None
        self.moved_s = now_s

    @property
    def behind(self) -> int:
        """Requests in front of the next one that is published here, as far as is known."""
        ahead = 0 if self.highest is None else max(0, self.sent - self.highest)
        return max(ahead, len(self.waiting))


class AnswerFollower:
    """Follows the answers on ``topic``; ``requests``, the topic that is published to, stands in messages."""

    def __init__(self, cluster: Cluster, topic: str, requests: str, clock: Clock) -> None:
        self._consumer = cluster.consumer()
        self._looking = cluster.consumer()
        self._topic = topic
        self._requests = requests
        self._clock = clock
        self._parts: dict[int, _Part] = {}
        self._assigned: frozenset[int] = frozenset()
        self._begins = asyncio.Lock()
        self._begun = asyncio.Event()
        self._watch = LogWatch(self._looking, topic, clock)
        self.owned: frozenset[int] = frozenset()
        """Partitions that are read all the time."""

    @property
    def reads(self) -> frozenset[int]:
        """The partitions that are read now."""
        return frozenset(self._parts)

    async def start(self) -> None:
        """Connect. Raises a KafkaError, which is an UnknownTopicError when there is no such topic."""
        await self._consumer.start()
        await self._looking.start()
        if not await self._looking.partitions_of(self._topic):
            raise UnknownTopicError(
                f"There is no topic {self._topic} to read answers from. Create it first, for example by "
                "`headrace topics apply`."
            )

    async def stop(self) -> None:
        await self._consumer.stop()
        await self._looking.stop()

    async def begin(self, partitions: Collection[int]) -> None:
        """Read ``partitions`` from now on, if they aren't yet: what is published behind this call is not missed.

        Raises a KafkaError, which is an UnknownTopicError for a partition that is not there.
        """
        if not self._parts.keys() >= set(partitions):
            async with self._begins:
                fresh = [TopicPartition(self._topic, number) for number in partitions if number not in self._parts]
                ends = await self._looking.end_offsets(fresh) if fresh else {}
                now_s = self._clock.monotonic()
                self._parts |= {name.partition: _Part(end, now_s) for name, end in ends.items()}
                self._begun.set()
        for number in partitions:
            self._parts[number].used_s = self._clock.monotonic()

    @contextmanager
    def publishing(self, number: int) -> Iterator[None]:
        """Around a publish to partition ``number`` and the :meth:`expect` of its answers; one at a time each."""
        part = self._parts[number]
        part.publishing += 1
        part.before = part.highest
        try:
            yield
        finally:
            part.publishing -= 1
            part.early.clear()
            part.overflowed = False
            part.used_s = self._clock.monotonic()

    def expect(
        self, number: int, offsets: Sequence[int], records: Sequence[Outgoing], batch: Batch, texts: Sequence[int]
    ) -> None:
        """``batch`` waits for the answers to ``records``, its texts of these numbers, which were published at
        ``offsets`` within :meth:`publishing`.
        """
        if (part := self._parts.get(number)) is None:
            for text in texts:
                batch.end(text, Unanswered(PENDING, "the answers are read anew; ask again by its place"))
            return
        part.sent = max(part.sent, offsets[-1])
        waiting, highest = part.waiting, -1 if part.highest is None else part.highest
        for offset, record, text in zip(offsets, records, texts, strict=True):
            entry = (batch, text, zlib.crc32(record.value or b""))
            if offset > highest:
                waiting.setdefault(offset, []).append(entry)
            else:
                self._passed(number, part, offset, entry)

    def _passed(self, number: int, part: _Part, offset: int, entry: _Waiting) -> None:
        """What was published as ``offset`` was answered, or passed over, before its acknowledgement came."""
        batch, text, _ = entry
        if (early := part.early.pop(offset, None)) is not None:
            self._end(number, early, entry)
        elif part.before is not None and offset <= part.before:
            batch.end(text, Unanswered(UNKNOWN, self._made_anew(number, offset)))
        else:
            batch.end(text, Unanswered(PENDING, "ask again by its place") if part.overflowed else _lost(offset))

    def wait(self, number: int, offset: int, batch: Batch, index: int = 0) -> None:
        """Text ``index`` of ``batch`` waits for an answer that may have come already; :meth:`begin` it before."""
        self._parts[number].waiting.setdefault(offset, []).append((batch, index, None))

    def forget(self, batch: Batch) -> None:
        """``batch`` waits no more."""
        if batch.ended:
            return
        for place, outcome in zip(batch.places, batch.outcomes, strict=True):
            if place is None or outcome is not None or (part := self._parts.get(place[0])) is None:
                continue
            kept = [one for one in part.waiting.pop(place[1], ()) if one[0] is not batch]
            if kept:
                part.waiting[place[1]] = kept

    def lag_s(self) -> float:
        """In how many seconds a request that is published now will probably be answered, in the slowest partition."""
        return max((self._lag_of(part) for part in self._parts.values()), default=0.0)

    def tick(self, passed_s: float) -> None:
        """Measure how fast each partition is answered; ``passed_s`` seconds after the last time."""
        for part in self._parts.values():
            if part.highest is None:
                continue
            answered = 0 if part.counted is None else part.highest - part.counted
            part.counted = part.highest
            part.rate += SMOOTHING * (answered / max(passed_s, 1e-3) - part.rate)
            if answered or not part.behind:
                part.moved_s = self._clock.monotonic()

    async def run(self) -> None:
        """Read until cancelled. Raises KafkaErrors that trying again does not mend."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._read(), name="answers")
            group.create_task(self._watch_log(), name="answers' log")

    async def _read(self) -> None:
        while True:
            self._drop_unused()
            if self._assigned != self._parts.keys():
                self._assign()
            if not self._assigned:
                self._begun.clear()
                await self._begun.wait()
                continue
            try:
                chunks = await self._consumer.fetch(max_records=CHUNK, timeout_s=FETCH_S)
            except OffsetOutOfRangeError as error:
                await self._back_into_the_log(error)
                continue
            except KafkaError as error:
                if not error.retriable:
                    raise
                event("answers.retry", level="debug", error=str(error))
                await self._clock.sleep(RETRY_S)
                self._seek()
                continue
            for name, records in chunks.items():
                if records and (part := self._parts.get(name.partition)) is not None:
                    self._take(name.partition, part, records)

    async def _watch_log(self) -> None:
        while True:
            await self._clock.sleep(WATCH_S)
            at = {TopicPartition(self._topic, number): part.position for number, part in self._parts.items()}
            try:
                await self._watch.look(at)
            except AnswerLogError as error:
                self._begin_anew(error)
            except KafkaError as error:
                event("answers.not-looked", level="debug", error=str(error))

    async def _back_into_the_log(self, error: OffsetOutOfRangeError) -> None:
        try:
            begins = await begins_after_retention(self._looking, error)
        except AnswerLogError as cut:
            self._begin_anew(cut)
            return
        for name, begin in begins.items():
            if (part := self._parts.get(name.partition)) is not None:
                part.position = begin
                self._consumer.seek(name, begin)

    def _begin_anew(self, error: AnswerLogError) -> None:
        """The log is not the one that was read: callers that wait are told so, and reading begins afresh."""
        event("answers.cut", level="error", error=str(error))
        parts, self._parts = self._parts, {}
        self._watch = LogWatch(self._looking, self._topic, self._clock)
        for part in parts.values():
            for entries in part.waiting.values():
                for batch, index, _ in entries:
                    batch.end(index, Unanswered(UNKNOWN, str(error)))

    def _drop_unused(self) -> None:
        now_s = self._clock.monotonic()
        unused = [
            number
            for number, part in self._parts.items()
            if number not in self.owned and not part.waiting and not part.publishing and now_s - part.used_s > LINGER_S
        ]
        for number in unused:
            del self._parts[number]

    def _assign(self) -> None:
        self._assigned = frozenset(self._parts)
        self._consumer.assign([TopicPartition(self._topic, number) for number in sorted(self._assigned)])
        self._seek()

    def _seek(self) -> None:
        for number in self._assigned & self._parts.keys():
            self._consumer.seek(TopicPartition(self._topic, number), self._parts[number].position)

    def _take(self, number: int, part: _Part, records: Sequence[Record]) -> None:
        waiting, read = part.waiting, part.reader.read
        for record in records:
            result = read_result(record)
            if result is None:
                continue
            reading = read(result.offset, result.after)
            if not reading.accepted:
                continue
            first, hole = part.highest is None, reading.hole
            offset = part.highest = result.offset
            if waiting and (first or hole is not None):
                self._lose(waiting, offset, None if hole is None else hole.first)
            entries = waiting.pop(offset, None)
            if entries is not None:
                for entry in entries:
                    self._end(number, result, entry)
            elif part.publishing:
                part.early[offset] = result
                if len(part.early) > MOST_EARLY:
                    part.early.pop(next(iter(part.early)))
                    part.overflowed = True
        part.position = max(part.position, records[-1].offset + 1)

    def _end(self, number: int, result: ClassifyResult, entry: _Waiting) -> None:
        batch, index, crc = entry
        if crc is None or result.crc == crc:
            batch.end(index, result)
        else:
            batch.end(index, Unanswered(UNKNOWN, self._made_anew(number, result.offset)))

    @staticmethod
    def _lose(waiting: dict[int, list[_Waiting]], answered: int, hole: int | None) -> None:
        """End the calls for requests in front of ``answered``: answers come in order, so those will have none."""
        for offset in [offset for offset in waiting if offset < answered]:
            # What was not published here may have been answered before reading began: whoever waits looks it up.
            entries = waiting.pop(offset)
            earlier = [one for one in entries if one[2] is None and (hole is None or offset < hole)]
            for batch, index, crc in entries:
                if crc is not None or (hole is not None and offset >= hole):
                    batch.end(index, _lost(offset))
            if earlier:
                waiting[offset] = earlier

    def _lag_of(self, part: _Part) -> float:
        if not part.behind:
            return 0.0
        stalled_s = self._clock.monotonic() - part.moved_s
        if part.rate < 1e-3 or stalled_s > 10:
            return min(STALLED_S, max(1.0, stalled_s))
        return part.behind / part.rate

    def _made_anew(self, number: int, offset: int) -> str:
        return (
            f"request {offset} of {self._requests}[{number}] has the answer to another one: the topic was cut or made "
            "anew"
        )


def _lost(offset: int) -> Unanswered:
    return Unanswered(LOST, f"request {offset} was passed over: later ones were answered")
