"""What is known of the keys of calls, as classify.idempotency has them: which attempt holds, and where its texts lie.

What is kept is bounded, and takes its meaning from the log's order and time stamps alone, so all gateways agree.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import ClassVar

from headrace.core.clock import Clock
from headrace.gateway.problems import LONGEST_WAIT_S
from headrace.kafka.interface import Cluster, KafkaError, OffsetOutOfRangeError, Record
from headrace.process.logs import Recurring, event
from headrace.registry.compacted_topics import CompactedLog
from headrace_schemas.codec import decode_idempotent_call
from headrace_schemas.errors import BadTypeError
from headrace_schemas.records import IdempotentCall
from headrace_schemas.topics import LEASE_KEYS, idempotent_call_key

CLAIMED = "claimed"
PUBLISHED = "published"
RELEASED = "released"

MOST_BYTES_EACH = 512
"""What is kept of a key on the average, at most; a call that goes to many partitions takes more, and others less."""
SKEW_MS = 60_000
FOLLOW_S = 0.2
_HEX = re.compile(r"[0-9a-f]{64}")


class Kept:
    """What is known of a key. ``at_ms`` is when it was claimed first, ``last_ms`` when last, ``seen_s`` when read."""

    __slots__ = ("at_ms", "last_ms", "record", "seen_s", "size", "spans")

    def __init__(self, record: IdempotentCall, at_ms: int, seen_s: float, size: int) -> None:
        self.record = record
        self.spans = {span.partition: (span.first, span.last) for span in record.spans}
        self.at_ms = self.last_ms = at_ms
        self.seen_s = seen_s
        self.size = size

    def begin_earlier(self, spans: Mapping[int, tuple[int, int | None]]) -> None:
        """Requests may lie further in front, where another attempt began."""
        for number, (first, _) in spans.items():
            own = self.spans.get(number)
            self.spans[number] = (first if own is None else min(first, own[0]), None)


class IdempotencyLog(CompactedLog[IdempotentCall]):
    """Follows classify.idempotency: of each key the call that holds, at most ``most`` of them and twice as many."""

    rubbish: ClassVar[str] = "idempotency.rubbish"
    followed: ClassVar[bool] = True

    def __init__(self, cluster: Cluster, topic: str, clock: Clock, *, retention_ms: int, most: int) -> None:
        super().__init__(cluster, topic)
        self._clock = clock
        self._retention_ms = retention_ms
        self._most = most
        self._bytes = 0
        self._at_ms = 0
        self._size = 0
        self._moved = asyncio.Event()
        self._crowded = Recurring("idempotency.crowded")
        self._kept: dict[str, Kept] = {}
        self.of_tenant: dict[str | None, int] = {}
        """How many keys of each tenant are kept."""

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, key: str) -> Kept | None:
        """What holds for ``key``; None where nothing does any more."""
        kept = self._kept.get(key)
        return None if kept is None or self._over(kept, self._clock.now_ms()) else kept

    def attempt_of(self, key: str) -> str | None:
        """The attempt that the next one takes the place of, whether its time is over or not."""
        kept = self._kept.get(key)
        return None if kept is None else kept.record.attempt

    def frees_in_s(self) -> float:
        """In how many seconds the oldest key is let go."""
        oldest = next(iter(self._kept.values()), None)
        left_ms = 0 if oldest is None else oldest.at_ms + self._retention_ms - self._clock.now_ms()
        return min(LONGEST_WAIT_S, max(1.0, left_ms / 1000))

    async def read_to(self, offset: int) -> None:
        """Wait until the record at ``offset`` was read."""
        while self._position <= offset:
            await self._moved.wait()

    async def moved(self) -> None:
        """Wait until something was read, or for FOLLOW_S."""
        await self._moved.wait()

    async def run(self) -> None:
        """Follow until cancelled. Raises KafkaErrors that trying again does not mend."""
        while True:
            try:
                await self.look(FOLLOW_S)
            except OffsetOutOfRangeError:
                await self._begin_anew()
            except KafkaError as error:
                if not error.retriable:
                    raise
                event("idempotency.waits", level="debug", error=str(error))
                await self._clock.sleep(FOLLOW_S)
            self._drop_old()
            moved, self._moved = self._moved, asyncio.Event()
            moved.set()

    async def _begin_anew(self) -> None:
        """Retention has overtaken this reader, or the topic was made anew."""
        self._position = (await self._consumer.beginning_offsets([self.name]))[self.name]
        await self.refresh()

    def _take_one(self, record: Record) -> None:
        if record.key is not None and record.key.startswith(LEASE_KEYS):
            return
        self._at_ms = record.timestamp
        self._size = len(record.value or b"") + len(record.key or b"")
        super()._take_one(record)

    def _decode(self, value: bytes | None) -> IdempotentCall | None:
        return decode_idempotent_call(value)

    def _key(self, record: IdempotentCall) -> bytes:
        return idempotent_call_key(record.key, record.attempt)

    def _keep(self, record: IdempotentCall) -> None:
        if not _HEX.fullmatch(record.key) or not _HEX.fullmatch(record.body):
            raise BadTypeError("key", "is no SHA-256, or that of the body is none")
        if record.state not in (CLAIMED, PUBLISHED, RELEASED):
            raise BadTypeError("state", "is none that this version knows")
        if any(span.first < 0 or (span.last or 0) < 0 for span in record.spans):
            raise BadTypeError("spans", "begin before a log does")
        fresh = Kept(record, self._at_ms, self._clock.monotonic(), self._size)
        kept = self._kept.get(record.key)
        if kept is None or self._over(kept, self._at_ms):
            self._put(record.key, fresh)
        elif kept.record.state == PUBLISHED:
            return
        elif record.state == PUBLISHED:
            fresh.at_ms = kept.at_ms
            self._put(record.key, fresh)
        elif record.body != kept.record.body:
            return
        elif kept.record.attempt in (record.attempt, record.after):
            fresh.at_ms = kept.at_ms
            fresh.begin_earlier(kept.spans)
            self._put(record.key, fresh)
        else:
            kept.begin_earlier(fresh.spans)

    def _forget(self, key: bytes | None) -> None:
        for name in [name for name, kept in self._kept.items() if self._key(kept.record) == key]:
            self._drop(name)

    def _over(self, kept: Kept, now_ms: int) -> bool:
        return now_ms - kept.at_ms >= self._retention_ms

    def _put(self, key: str, kept: Kept) -> None:
        if key in self._kept:
            self._drop(key)
        self._kept[key] = kept
        self._bytes += kept.size
        tenant = kept.record.tenant
        self.of_tenant[tenant] = self.of_tenant.get(tenant, 0) + 1
        # Gateways refuse new keys long before; this is for what somebody else writes here.
        while len(self._kept) > 2 * self._most or self._bytes > 2 * self._most * MOST_BYTES_EACH:
            self._crowded.event(keys=len(self._kept))
            self._drop(next(iter(self._kept)))

    def _drop(self, key: str) -> None:
        kept = self._kept.pop(key)
        self._bytes -= kept.size
        tenant = kept.record.tenant
        self.of_tenant[tenant] -= 1
        if not self.of_tenant[tenant]:
            del self.of_tenant[tenant]

    def _drop_old(self) -> None:
        now_ms = self._clock.now_ms() - SKEW_MS
        while self._kept and self._over(next(iter(self._kept.values())), now_ms):
            self._drop(next(iter(self._kept)))
