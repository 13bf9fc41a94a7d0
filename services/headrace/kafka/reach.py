"""Whether Kafka answers and has the topics: both are asked every second, and a change is logged.

aiokafka never says so: its calls wait, or fail one by one, and it goes on trying by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Never

from headrace.core.clock import Clock
from headrace.kafka.interface import Cluster, Consumer, KafkaError, UnknownTopicError
from headrace.process.logs import Overdue, event

EVERY_S = 1.0
ASK_LIMIT_S = 5.0
SILENT_S = 3.0
"""Kafka counts as away when it has answered nothing for so long. A broker that stops hands over faster."""
MISSING_TWICE = 2
"""A topic counts as missing after so many looks in a row: a broker that has just started may not know all topics
yet.
"""

MEND = "`headrace topics apply` creates them; work goes on when they are there"

Ask = Callable[[], Awaitable[Sequence[str]]]
"""Asks Kafka something and returns the topics that are missing. Raises a KafkaError."""


class Reach:
    """What :meth:`watch` has found out about ``cluster``. ``away_after`` is in seconds."""

    def __init__(self, cluster: Cluster, *, clock: Clock, away_after: float = 10.0) -> None:
        self._cluster = cluster
        self._clock = clock
        self._away_after = away_after
        self._heard_s: float | None = None
        self._why = ""
        self._silence = Overdue(SILENT_S)
        self._seen_missing = 0
        self._missing_since_s = 0.0
        self._absence = Overdue(0.0)
        self._seen_whole = 0
        self.missing: tuple[str, ...] = ()
        """The topics that were there and are gone."""

    @property
    def connected(self) -> bool:
        """Whether Kafka answers; False before the first look."""
        return self._heard_s is not None and self._silent_s < SILENT_S

    @property
    def away(self) -> str | None:
        """That Kafka does not answer, and why, in words; None when it does."""
        if self._heard_s is None or self.connected:
            return None
        why = f" ({self._why})" if self._why else ""
        return f"Kafka at {self._cluster.bootstrap} has not answered for {self._silent_s:.0f} s{why}"

    @property
    def unready(self) -> str | None:
        """Why no work can be done, in words, once that has lasted; None as long as it can."""
        if self.away is not None and self._silent_s >= self._away_after:
            return f"{self.away}; lag unknown"
        return self._gone if self.missing else None

    def check_topics(self) -> None:
        """Raises UnknownTopicError while topics are missing that were there."""
        if self.missing:
            raise UnknownTopicError(self._gone)

    async def topics_gone(self) -> Never:
        """Raises UnknownTopicError as soon as topics are missing that were there."""
        while True:
            self.check_topics()
            await self._clock.sleep(EVERY_S)

    async def whole(self, stop: asyncio.Event) -> None:
        """Wait until a look that begins after this call finds all topics, or ``stop`` is set."""
        # A look that is under way may have begun before the topics changed.
        enough = self._seen_whole + 2
        while self._seen_whole < enough and not stop.is_set():
            await self._clock.sleep(EVERY_S)

    async def watch(self, ask: Ask) -> None:
        """Ask every second, until cancelled."""
        self._heard_s = self._clock.monotonic()
        while True:
            try:
                async with asyncio.timeout(ASK_LIMIT_S):
                    missing = await ask()
            except (KafkaError, TimeoutError) as error:
                await self._failed(error)
            else:
                self._answered()
                self._look_at(tuple(missing))
            await self._clock.sleep(EVERY_S)

    @property
    def _gone(self) -> str:
        return f"missing topics: {', '.join(self.missing)}. {MEND}"

    @property
    def _silent_s(self) -> float:
        return 0.0 if self._heard_s is None else self._clock.monotonic() - self._heard_s

    async def _failed(self, error: Exception) -> None:
        if isinstance(error, KafkaError) and not error.retriable:
            # A refusal is an answer too: Kafka is there.
            self._answered()
            return
        self._why = await self._reason(error)
        if self._silence.due(self._silent_s):
            event(
                "broker.away",
                level="warning",
                bootstrap=self._cluster.bootstrap,
                away_s=round(self._silent_s),
                why=self._why,
                then="it is tried again all the time",
            )

    async def _reason(self, error: Exception) -> str:
        try:
            async with asyncio.timeout(ASK_LIMIT_S):
                return await self._cluster.why_away() or str(error) or "no answer in time"
        except TimeoutError:
            return str(error) or "no answer in time"

    def _answered(self) -> None:
        if self._silence.said:
            event("broker.back", bootstrap=self._cluster.bootstrap, away_s=round(self._silent_s))
        self._heard_s = self._clock.monotonic()
        self._why = ""
        self._silence = Overdue(SILENT_S)

    def _look_at(self, missing: tuple[str, ...]) -> None:
        now = self._clock.monotonic()
        if not missing:
            self._seen_whole += 1
            if self.missing:
                event("topics.back", topics=list(self.missing), away_s=round(now - self._missing_since_s))
            self.missing, self._seen_missing, self._absence = (), 0, Overdue(0.0)
            return
        self._missing_since_s = self._missing_since_s if self._seen_missing else now
        self._seen_missing += 1
        if self._seen_missing < MISSING_TWICE:
            return
        self.missing = missing
        if self._absence.due(now - self._missing_since_s):
            event("topics.missing", level="warning", topics=list(missing), why=MEND)


async def missing_of(consumer: Consumer, topics: Collection[str]) -> list[str]:
    """Those of ``topics`` that the cluster does not have. Raises a KafkaError."""
    return [topic for topic in topics if not await consumer.partitions_of(topic)]
