"""The stream of texts: it is published at a steady rate, whenever answers come, and a ledger audits it.

Its figures take constant memory: quantiles of latencies, and the rate of the last seconds.
"""

from __future__ import annotations

import asyncio
import math
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Never

import msgspec

from headrace.client import Answer, AnswerReader, Client, Published
from headrace.core.clock import Clock
from headrace_schemas.records import Status

_Place = tuple[int, int]


class Sent(msgspec.Struct, frozen=True):
    """A text to publish. ``truth`` is its true label, if accuracy is counted. ``due`` is when it was due, in seconds of
    the clock, if latency is counted.
    """

    text: str
    truth: str | None = None
    due: float | None = None


Note = Callable[[Sent, Answer, float], None]
"""Called with a text, its answer, and the time when the answer was read, in seconds of the clock."""


class Ledger:
    """Matches answers with published texts by partition, offset and CRC. One publish is under way at a time.

    It does not trust the reader to drop repeats: an answer without a waiting request counts as repeated. ``note`` is
    called for each answer that matches.
    """

    def __init__(self, note: Note = lambda *_: None) -> None:
        self._note = note
        self.published = 0
        self.answered = 0
        self.right = 0
        self.scored = 0
        self.labels: Counter[str] = Counter()
        self.statuses: Counter[Status] = Counter()
        self.latencies = Latencies()
        self.publishing = asyncio.Lock()
        """Held while a publish is under way."""
        self._waiting: dict[_Place, tuple[Sent, int]] = {}
        self._early: dict[_Place, tuple[Answer, float]] = {}
        self._unasked = 0

    @property
    def waiting(self) -> int:
        """How many texts are published and not answered; at the end, how many are lost."""
        return len(self._waiting)

    @property
    def repeated(self) -> int:
        """How many answers had no waiting request. It is valid while no publish is under way."""
        return self._unasked + len(self._early)

    def acknowledge(self, sent: Sequence[Sent], places: Sequence[Published]) -> None:
        """Note the places of the texts of one publish, in the order given."""
        for one, place in zip(sent, places, strict=True):
            self.published += 1
            self.scored += one.truth is not None
            self._waiting[place.partition, place.offset] = (one, place.crc)
            early = self._early.pop((place.partition, place.offset), None)
            if early is not None:
                self._match(*early)
        # No publish is under way, so the answers that are left will find no request.
        self._unasked += len(self._early)
        self._early.clear()

    def take(self, answer: Answer, now: float) -> None:
        """Note an answer that the reader accepted at ``now``, in seconds of the clock."""
        place = (answer.partition, answer.result.offset)
        if place in self._waiting:
            self._match(answer, now)
        elif place in self._early:
            self._unasked += 1
        else:
            # An answer can come before the acknowledgement of its request.
            self._early[place] = (answer, now)

    def _match(self, answer: Answer, now: float) -> None:
        result = answer.result
        place = (answer.partition, result.offset)
        sent, crc = self._waiting[place]
        if result.crc != crc:
            # The answer is to another text, so this one goes on waiting.
            return
        del self._waiting[place]
        self.answered += 1
        self.statuses[result.status] += 1
        if result.label is not None:
            self.labels[result.label] += 1
        self.right += sent.truth is not None and result.label == sent.truth
        if sent.due is not None:
            self.latencies.add(now - sent.due)
        self._note(sent, answer, now)


_LEAST_S = 0.0001
_GROWTH = 1.02
_BUCKETS = 700
"""From 0.1 ms by steps of 2 % to 105 s."""


class Latencies:
    """A histogram of seconds whose buckets grow by 2 %, so that a quantile is within 1 % (or 0.1 ms) of the true one.

    Longer times count as 105 s.
    """

    def __init__(self) -> None:
        self._counts = [0] * _BUCKETS
        self._total = 0

    def add(self, seconds: float) -> None:
        place = math.ceil(math.log(max(seconds, _LEAST_S) / _LEAST_S, _GROWTH))
        self._counts[min(place, _BUCKETS - 1)] += 1
        self._total += 1

    def quantile(self, share: float) -> float | None:
        """The quantile ``share``, in (0, 1], in seconds (nearest rank); None without any."""
        rank = math.ceil(share * self._total)
        if not rank:
            return None
        place = bisect_left(list(accumulate(self._counts)), rank)
        # The middle of the bucket (its upper bound is _LEAST_S * _GROWTH**place), in the logarithm.
        return _LEAST_S * _GROWTH ** (place - 0.5) if place else _LEAST_S


class Rate:
    """How fast a counter grew over the last ``window_s`` seconds."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._samples: deque[tuple[float, int]] = deque()

    def at(self, now: float, total: int) -> float:
        """Add the sample (``now`` in seconds, ``total``). Returns the growth a second since the oldest kept sample."""
        self._samples.append((now, total))
        while len(self._samples) > 2 and now - self._samples[1][0] >= self._window_s:
            self._samples.popleft()
        since, before = self._samples[0]
        return (total - before) / (now - since) if now > since else 0.0


RATE_WINDOW_S = 2.0
TICK_S = 0.02
"""Texts that fall due within so long are sent together, because the embedded broker slows down with every batch."""


def due_by(elapsed_s: float, rate: float) -> int:
    """How many texts are due after ``elapsed_s`` seconds, when text k is due at k / ``rate``."""
    return math.floor(elapsed_s * rate) + 1


async def publish_all(client: Client, ledger: Ledger, texts: Sequence[Sent]) -> None:
    """Publish all at once. Raises a KafkaError."""
    async with ledger.publishing:
        ledger.acknowledge(texts, await client.publish_many(one.text for one in texts))


async def publish_steadily(client: Client, ledger: Ledger, texts: Iterator[str], *, rate: float, clock: Clock) -> None:
    """Publish ``rate`` of ``texts`` a second until they end, in an open loop, which waits for no answer.

    A text's latency counts from when it was due, so late publishing improves no figure. Raises a KafkaError.
    """
    begun = clock.monotonic()
    published = 0
    while True:
        due = range(published, due_by(clock.monotonic() - begun, rate))
        # The numbers come first in zip: when they end, no text is taken and lost.
        sent = [Sent(text, due=begun + number / rate) for number, text in zip(due, texts, strict=False)]
        await publish_all(client, ledger, sent)
        published += len(sent)
        if len(sent) < len(due):
            return
        wait_s = begun + published / rate - clock.monotonic()
        await clock.sleep(max(TICK_S, wait_s))


async def read_answers(reader: AnswerReader, ledger: Ledger, clock: Clock) -> Never:
    """Take answers into ``ledger`` until cancelled. Raises a KafkaError, and AnswerLogError when the log was cut."""
    while True:
        for answer in await reader.read():
            ledger.take(answer, clock.monotonic())


async def all_answered(ledger: Ledger, limit_s: float, clock: Clock) -> None:
    """Wait until every published text is answered, or no answer came for ``limit_s`` seconds."""
    answered, since = ledger.answered, clock.monotonic()
    while ledger.waiting and clock.monotonic() - since < limit_s:
        await clock.sleep(TICK_S)
        if ledger.answered > answered:
            answered, since = ledger.answered, clock.monotonic()


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The stream at one moment. ``seconds`` is its length, None when open; ``rate`` is that of the last seconds;
    latencies are in seconds; ``lag`` counts texts that are published and not answered.
    """

    elapsed_s: float
    seconds: float | None
    answered: int
    labels: tuple[tuple[str, int], ...]
    rate: float
    p50: float | None
    p99: float | None
    lag: int


def snapshot(ledger: Ledger, *, elapsed_s: float, seconds: float | None, rate: float) -> Snapshot:
    """The present figures of ``ledger``, with the labels by their counts, most frequent first."""
    return Snapshot(
        elapsed_s=elapsed_s,
        seconds=seconds,
        answered=ledger.answered,
        labels=tuple(sorted(ledger.labels.items(), key=lambda counted: (-counted[1], counted[0]))),
        rate=rate,
        p50=ledger.latencies.quantile(0.5),
        p99=ledger.latencies.quantile(0.99),
        lag=ledger.waiting,
    )


def follow(ledger: Ledger, *, seconds: float | None, clock: Clock) -> Callable[[], Snapshot]:
    """Begin to follow a stream. Returns a function that returns its present figures."""
    begun = clock.monotonic()
    recent = Rate(RATE_WINDOW_S)

    def now() -> Snapshot:
        elapsed_s = clock.monotonic() - begun
        rate = recent.at(elapsed_s, ledger.answered)
        return snapshot(ledger, elapsed_s=elapsed_s, seconds=seconds, rate=rate)

    return now
