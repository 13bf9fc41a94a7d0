"""Publishing at a steady rate whatever the answers do, and reading them meanwhile."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Never

import msgspec

from headrace.client import AnswerReader, Client
from headrace.core.clock import Clock
from headrace.demo.ledger import Ledger, Rate, Sent

RATE_WINDOW_S = 2.0
TICK_S = 0.02
"""Texts that fall due within so long go together: the embedded broker slows down with every batch that it holds."""


def due_by(elapsed_s: float, rate: float) -> int:
    """How many texts are due after ``elapsed_s`` seconds, when text k is due at k / ``rate``."""
    return math.floor(elapsed_s * rate) + 1


async def publish_all(client: Client, ledger: Ledger, texts: Sequence[Sent]) -> None:
    """Publish all at once. Raises a KafkaError."""
    ledger.acknowledge(texts, await client.publish_many(one.text for one in texts))


async def publish_steadily(client: Client, ledger: Ledger, texts: Iterator[str], *, rate: float, clock: Clock) -> None:
    """Publish ``rate`` of ``texts`` a second until they end: an open loop, which waits for no answer.

    A text's latency counts from when it was due, so a publish that is late makes no figure better. Raises a KafkaError.
    """
    begun = clock.monotonic()
    published = 0
    while True:
        due = range(published, due_by(clock.monotonic() - begun, rate))
        # The numbers come first: where they end no text is taken and lost.
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
    """Wait until nothing that was published waits for its answer, or no answer came for ``limit_s``."""
    answered, since = ledger.answered, clock.monotonic()
    while ledger.waiting and clock.monotonic() - since < limit_s:
        await clock.sleep(TICK_S)
        if ledger.answered > answered:
            answered, since = ledger.answered, clock.monotonic()


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The stream at one moment. ``seconds`` is how long it goes on, None when that is open; ``rate`` is of the last
    seconds, latencies are in seconds, ``lag`` is how many texts were published and not answered so far.
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
    """What ``ledger`` says now; the labels by their number, most frequent first."""
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
    """A stream begins now; what is returned says how far it is."""
    begun = clock.monotonic()
    recent = Rate(RATE_WINDOW_S)

    def now() -> Snapshot:
        elapsed_s = clock.monotonic() - begun
        rate = recent.at(elapsed_s, ledger.answered)
        return snapshot(ledger, elapsed_s=elapsed_s, seconds=seconds, rate=rate)

    return now
