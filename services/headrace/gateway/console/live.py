"""What happens on the log now: one reader for all who watch, and a stream of events for each of them.

Once a second the ends of both logs are asked for, which gives rates and lag. Of new answers at most SAMPLE are read,
and the time stamps of their requests: latency, labels and versions are those of that sample, however much comes in.
Nothing is read while nobody watches.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter, deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing

import msgspec

from headrace.core.clock import Clock
from headrace.core.drift import VersionDrift
from headrace.kafka.interface import (
    Cluster,
    Consumer,
    KafkaError,
    OffsetOutOfRangeError,
    Record,
    TopicPartition,
    UnknownTopicError,
)
from headrace.kafka.range_reader import read_ranges
from headrace.process.logs import event
from headrace_schemas.codec import decode_result
from headrace_schemas.errors import WireError
from headrace_schemas.headers import content_type
from headrace_schemas.records import ClassifyResult, ModelAlias, ModelVersion, Status

TICK_S = 1.0
RETRY_S = 2.0
LOOK_LIMIT_S = 15.0
"""After so many seconds a look is given up, and the broker counts as away."""
SAMPLE = 512
MOST_PARTITIONS = 16
"""The most partitions that one look reads; if more have new answers, they take turns."""
HISTORY = 900
WINDOW = 60
"""Ticks over which labels, statuses and the latency's percentiles are shown."""
LINGER_S = 60.0
MOST_VIEWERS = 200
MOST_WAITING = 8
"""The most events that wait for a slow viewer. Each holds all that is shown, so the oldest may be dropped."""
MOST_LABELS = 40
TOPICS_S = 30.0
NO_LABEL = "(no label)"
OTHERS = "(others)"


class Tick(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One look. Rates are records a second; ``lag`` is requests without an answer, ``lag_s`` the oldest one's age.

    ``p50_ms`` and ``p99_ms``, from the request's time stamp to the answer's, are of the ``sampled`` answers of this
    look. ``away`` says why there are no figures.
    """

    at_ms: int
    requests_s: float | None = None
    answers_s: float | None = None
    lag: int | None = None
    lag_s: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    sampled: int = 0
    versions: dict[str, int] = {}
    away: str | None = None


class Answered(msgspec.Struct, frozen=True):
    """A sampled answer, and how long it took, where that is known."""

    took_ms: float | None
    result: ClassifyResult


class Summary(msgspec.Struct, frozen=True):
    """The last WINDOW ticks' sample together; ``labels`` are those given most often, the most frequent first."""

    sampled: int
    p50_ms: float | None
    p99_ms: float | None
    labels: list[tuple[str, int]]
    statuses: dict[str, int]


class DriftShown(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far the sampled answers of ``version``, which workers follow, are from those on its test rows.

    ``labels`` and ``confidence`` are population stability indices, None before ``needed`` answers were sampled.
    ``why`` says why nothing is measured.
    """

    version: str | None = None
    answers: int = 0
    needed: int = 0
    labels: float | None = None
    confidence: float | None = None
    why: str | None = None


class Shown(msgspec.Struct, frozen=True, omit_defaults=True):
    """The content of an event. Only a stream's first event has ``history``; ``moves`` is there if they changed."""

    tick: Tick | None
    summary: Summary
    history: list[Tick] | None = None
    moves: list[ModelAlias] | None = None
    drift: DriftShown | None = None


def percentile(values: Sequence[float], fraction: float) -> float | None:
    """The smallest of ``values`` that at least ``fraction`` of them do not exceed (nearest rank); None without any."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(fraction * len(values)) - 1)]


def summary_of(looks: Sequence[Sequence[Answered]]) -> Summary:
    """What the samples of several looks say together."""
    answers = [one for look in looks for one in look]
    results = [one.result for one in answers]
    took = [one.took_ms for one in answers if one.took_ms is not None]
    labels = Counter(one.label or NO_LABEL for one in results if one.status is Status.OK)
    shown = labels.most_common(MOST_LABELS)
    if others := labels.total() - sum(count for _, count in shown):
        shown.append((OTHERS, others))
    statuses = Counter(one.status.value for one in results)
    return Summary(len(answers), percentile(took, 0.5), percentile(took, 0.99), shown, dict(statuses))


class LogSampler:
    """Looks at both logs. ``look`` may raise a KafkaError; then a new one is made."""

    def __init__(self, cluster: Cluster, requests: str, results: str, clock: Clock) -> None:
        self._of_requests = cluster.consumer()
        self._of_results = cluster.consumer()
        self._requests = requests
        self._results = results
        self._clock = clock
        self._partitions: list[int] = []
        self._due_s = -math.inf
        self._before: tuple[float, int, int] | None = None
        self._read: dict[int, int] = {}
        """By partition, the position behind the last answer that was read or skipped."""
        self._turn: dict[int, int] = {}
        self._answered: dict[int, tuple[int, int]] = {}
        """The last request seen answered, and the position behind its answer."""
        self._looks = 0

    async def start(self) -> None:
        await self._of_requests.start()
        await self._of_results.start()

    async def stop(self) -> None:
        await self._of_requests.stop()
        await self._of_results.stop()

    async def look(self) -> tuple[Tick, list[Answered]]:
        """The figures of now, and the sample. Raises a KafkaError."""
        await self._find_partitions()
        self._looks += 1
        # The requests first: one that comes in between then counts as answered and not as waiting.
        asked = await self._ends(self._of_requests, self._requests)
        answered = await self._ends(self._of_results, self._results)
        requests_s, answers_s = self._rates(sum(asked.values()), sum(answered.values()))
        answers = await self._sample(answered)
        lag, lag_s = await self._lag(asked, answered)
        took = [one.took_ms for one in answers if one.took_ms is not None]
        tick = Tick(
            at_ms=self._clock.now_ms(),
            requests_s=requests_s,
            answers_s=answers_s,
            lag=lag,
            lag_s=lag_s,
            p50_ms=percentile(took, 0.5),
            p99_ms=percentile(took, 0.99),
            sampled=len(answers),
            versions=dict(Counter(one.result.version for one in answers)),
        )
        return tick, answers

    async def _find_partitions(self) -> None:
        if self._clock.monotonic() < self._due_s:
            return
        self._due_s = self._clock.monotonic() + TOPICS_S
        there = await self._of_requests.partitions_of(self._requests) & await self._of_results.partitions_of(
            self._results
        )
        if not there:
            raise UnknownTopicError(
                f"There are no topics {self._requests} and {self._results}; `headrace topics apply` creates them."
            )
        self._partitions = sorted(there)

    async def _ends(self, consumer: Consumer, topic: str) -> dict[int, int]:
        ends = await consumer.end_offsets([TopicPartition(topic, number) for number in self._partitions])
        return {name.partition: end for name, end in ends.items()}

    def _rates(self, asked: int, answered: int) -> tuple[float | None, float | None]:
        now_s = self._clock.monotonic()
        before, self._before = self._before, (now_s, asked, answered)
        if before is None or now_s <= before[0]:
            return None, None
        seconds = now_s - before[0]
        return max(0, asked - before[1]) / seconds, max(0, answered - before[2]) / seconds

    async def _sample(self, ends: dict[int, int]) -> list[Answered]:
        new = [one for one, end in ends.items() if end > self._read.get(one, 0)]
        new.sort(key=lambda one: self._turn.get(one, 0))
        chosen = new[:MOST_PARTITIONS]
        if not chosen:
            return []
        each = max(1, SAMPLE // len(chosen))
        names = {one: TopicPartition(self._results, one) for one in chosen}
        begins = await self._of_results.beginning_offsets(list(names.values()))
        starts = {name: max(self._read.get(one, 0), begins[name], ends[one] - each) for one, name in names.items()}
        found: dict[int, list[tuple[int, ClassifyResult]]] = {}
        try:
            async with aclosing(_ranges(self._of_results, starts, {names[one]: ends[one] for one in chosen})) as read:
                async for record in read:
                    try:
                        result = decode_result(record.value, content_type(record.headers))
                    except WireError:  # somebody else's record, which readers of answers speak of
                        continue
                    found.setdefault(record.partition, []).append((record.timestamp, result))
        except OffsetOutOfRangeError:  # retention, or a topic made anew: the next look begins again
            self._read.clear()
            return []
        for one in chosen:
            self._read[one], self._turn[one] = ends[one], self._looks
            if one in found:
                self._answered[one] = max(result.offset for _, result in found[one]), ends[one]
        asked_ms = await self._times_of_requests(found)
        return [
            Answered(
                None if (asked := asked_ms.get((one, result.offset))) is None else max(0, at_ms - asked),
                result,
            )
            for one, results in found.items()
            for at_ms, result in results
        ]

    async def _times_of_requests(
        self, found: dict[int, list[tuple[int, ClassifyResult]]]
    ) -> dict[tuple[int, int], int]:
        """When the requests of the answers came, by partition and offset; those that retention deleted are left out."""
        first = {one: min(result.offset for _, result in results) for one, results in found.items()}
        end = {one: max(result.offset for _, result in results) + 1 for one, results in found.items()}
        # Answers that were given twice may reach back far.
        starts = {TopicPartition(self._requests, one): max(first[one], end[one] - 2 * SAMPLE) for one in found}
        times: dict[tuple[int, int], int] = {}
        try:
            begins = await self._of_requests.beginning_offsets(list(starts))
            starts = {name: max(start, begins[name]) for name, start in starts.items()}
            ends = {TopicPartition(self._requests, one): end[one] for one in found}
            async with aclosing(_ranges(self._of_requests, starts, ends)) as read:
                async for record in read:
                    times[record.partition, record.offset] = record.timestamp
        except OffsetOutOfRangeError:  # retention took them meanwhile
            pass
        return times

    async def _lag(self, asked: dict[int, int], answered: dict[int, int]) -> tuple[int, float]:
        """Requests that have no answer, and the age of the oldest in seconds."""
        begins = await self._of_requests.beginning_offsets(
            [TopicPartition(self._requests, one) for one in self._partitions]
        )
        next_: dict[int, int] = {}
        for one in self._partitions:
            last, behind = self._answered.get(one, (-1, answered[one]))
            # Each answer that was not read belongs to a request of its own, or nearly so.
            next_[one] = max(begins[TopicPartition(self._requests, one)], last + 1 + max(0, answered[one] - behind))
        lags = {one: asked[one] - next_[one] for one in self._partitions if asked[one] > next_[one]}
        longest = sorted(lags, key=lambda one: -lags[one])[:MOST_PARTITIONS]
        oldest: list[int] = []
        if longest:
            starts = {TopicPartition(self._requests, one): next_[one] for one in longest}
            ends = {name: start + 1 for name, start in starts.items()}
            try:
                async with aclosing(_ranges(self._of_requests, starts, ends)) as read:
                    oldest = [record.timestamp async for record in read]
            except OffsetOutOfRangeError:
                oldest = []
        waited = max(0, self._clock.now_ms() - min(oldest)) / 1000 if oldest else 0.0
        return sum(lags.values()), waited


async def _ranges(
    consumer: Consumer, starts: dict[TopicPartition, int], ends: dict[TopicPartition, int]
) -> AsyncGenerator[Record, None]:
    async for records in read_ranges(consumer, starts, ends, chunk=SAMPLE):
        for record in records:
            yield record


class Feed:
    """The events of all viewers, from one reader that runs while somebody watches, and a minute longer.

    ``moves`` reads how aliases moved; None where nothing changed since it was last asked. ``followed`` gives the
    version that workers follow, whose drift is measured.
    """

    def __init__(
        self,
        new_sampler: Callable[[], LogSampler],
        moves: Callable[[], Awaitable[list[ModelAlias] | None]],
        followed: Callable[[], Awaitable[ModelVersion | None]],
        clock: Clock,
    ) -> None:
        self._new_sampler = new_sampler
        self._read_moves = moves
        self._followed = followed
        self._drift = VersionDrift()
        self._drift_shown = DriftShown()
        self._clock = clock
        self._viewers: set[asyncio.Queue[bytes | None]] = set()
        self._running: asyncio.Task[None] | None = None
        self._history: deque[Tick] = deque(maxlen=HISTORY)
        self._looks: deque[list[Answered]] = deque(maxlen=WINDOW)
        self._moves: list[ModelAlias] = []
        self._watched_s = 0.0
        self._closed = False

    @property
    def full(self) -> bool:
        """Whether nobody more can watch."""
        return self._closed or len(self._viewers) >= MOST_VIEWERS

    async def events(self) -> AsyncIterator[bytes]:
        """Server-sent events, until the viewer goes or the feed is closed."""
        waiting: asyncio.Queue[bytes | None] = asyncio.Queue(MOST_WAITING)
        self._viewers.add(waiting)
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run(), name="console feed")
        try:
            last = self._history[-1] if self._history else None
            first = Shown(last, summary_of(self._looks), list(self._history), self._moves, self._drift_shown)
            yield b"retry: 2000\n" + _event(first)
            while (said := await waiting.get()) is not None:
                yield said
        finally:
            self._viewers.discard(waiting)
            self._watched_s = self._clock.monotonic()

    async def close(self) -> None:
        """End all streams and the reader."""
        self._closed = True
        for waiting in self._viewers:
            _put(waiting, None)
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])

    async def _run(self) -> None:
        while self._wanted():
            sampler = self._new_sampler()
            try:
                async with asyncio.timeout(LOOK_LIMIT_S):
                    await sampler.start()
                while self._wanted():
                    begun_s = self._clock.monotonic()
                    async with asyncio.timeout(LOOK_LIMIT_S):
                        tick, answers = await sampler.look()
                        moves = await self._read_moves()
                        self._drift_shown = self._measured(await self._followed(), answers)
                    self._tell(tick, answers, moves)
                    await self._clock.sleep(max(0.1, TICK_S - (self._clock.monotonic() - begun_s)))
            except (KafkaError, TimeoutError) as error:
                why = str(error) or f"nothing came for {LOOK_LIMIT_S:.0f} s"
                event("console.feed_away", level="warning", error=why)
                self._tell(Tick(at_ms=self._clock.now_ms(), away=why), [], None)
                await self._clock.sleep(RETRY_S)
            finally:
                await sampler.stop()

    def _wanted(self) -> bool:
        return bool(self._viewers) or self._clock.monotonic() < self._watched_s + LINGER_S

    def _measured(self, followed: ModelVersion | None, answers: Sequence[Answered]) -> DriftShown:
        drift, now_s = self._drift, self._clock.monotonic()
        if followed is None:
            return DriftShown(why="No version is followed yet.")
        try:
            drift.follow(followed)
        except ValueError as error:
            event("console.drift_unmeasurable", level="warning", version=followed.version, why=str(error))
        if not drift.measurable:
            return DriftShown(followed.version, why="This version's record has no profile to measure against.")
        drift.add([one.result for one in answers], now_s)
        found = drift.measure(now_s)
        if found is None:
            return DriftShown(followed.version, drift.seen(), drift.needed)
        return DriftShown(followed.version, found.answers, drift.needed, found.labels, found.confidence)

    def _tell(self, tick: Tick, answers: list[Answered], moves: list[ModelAlias] | None) -> None:
        self._history.append(tick)
        self._looks.append(answers)
        if moves is not None:
            self._moves = moves
        said = _event(Shown(tick, summary_of(self._looks), None, moves, self._drift_shown))
        for waiting in self._viewers:
            _put(waiting, said)


def _put(waiting: asyncio.Queue[bytes | None], said: bytes | None) -> None:
    if waiting.full():
        waiting.get_nowait()
    waiting.put_nowait(said)


def _event(shown: Shown) -> bytes:
    # JSON of msgspec has no line end in it.
    return b"data: " + msgspec.json.encode(shown) + b"\n\n"
