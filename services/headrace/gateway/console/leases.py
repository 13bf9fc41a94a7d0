"""Leases of texts that all gateways share, so that two people at one queue of two gateways get different texts.

They lie on classify.idempotency, whose order decides as it does for calls: a lease holds unless another one of the same
text does. Times are the broker's, so all gateways agree. Who lost writes a record that gives up, because compaction
may later remove the lease that was first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from typing import ClassVar, NamedTuple

from headrace.core.clock import Clock
from headrace.gateway.console.desk import LEASE_S
from headrace.gateway.console.open_log import OpenLog
from headrace.gateway.console.producer import OpenProducer
from headrace.kafka.interface import Cluster, Outgoing, Record
from headrace.registry.compacted_topics import CompactedLog
from headrace_schemas.codec import decode_text_lease, encode_text_lease
from headrace_schemas.records import TextLease
from headrace_schemas.topics import LEASE_KEYS, text_lease_key

LABELLED_S = 1200.0
"""So long after its label a text is asked about by no gateway, in seconds; each reads the labels anew before."""
LABELLED = "labelled"
"""Holds a text that has a label now. No session has this id."""
MOST = 100_000


class _Held(NamedTuple):
    """Who holds a text until when, in milliseconds of the broker's clock, and whether it is labelled."""

    holder: str
    until_ms: int
    labelled: bool


class LeaseLog(CompactedLog[TextLease]):
    """Reads the leases on the topic, at most MOST of them."""

    rubbish: ClassVar[str] = "leases.rubbish"
    followed: ClassVar[bool] = False

    def __init__(self, cluster: Cluster, topic: str) -> None:
        super().__init__(cluster, topic)
        self._held: dict[str, _Held] = {}
        self._at_ms = 0

    def holder_of(self, text: str, now_ms: int) -> str | None:
        """The session that holds ``text``, LABELLED, or None."""
        held = self._held.get(text)
        if held is None or held.until_ms <= now_ms:
            return None
        return LABELLED if held.labelled else held.holder

    def left_ms(self, text: str, now_ms: int) -> int:
        """How long the lease of ``text`` goes on."""
        held = self._held.get(text)
        return 0 if held is None else max(0, held.until_ms - now_ms)

    def held_by(self, who: str) -> list[str]:
        """The texts that ``who`` holds and that have no label."""
        return [text for text, held in self._held.items() if held.holder == who and not held.labelled]

    def _take_one(self, record: Record) -> None:
        self._at_ms = record.timestamp
        if record.key is not None and record.key.startswith(LEASE_KEYS):
            super()._take_one(record)

    def _decode(self, value: bytes | None) -> TextLease | None:
        return decode_text_lease(value)

    def _key(self, record: TextLease) -> bytes:
        return text_lease_key(record.text, record.holder)

    def _keep(self, record: TextLease) -> None:
        held = self._held.get(record.text)
        if held is not None and held.holder != record.holder and held.until_ms > self._at_ms:
            return
        self._held.pop(record.text, None)
        if record.lease_ms > 0:
            self._held[record.text] = _Held(record.holder, self._at_ms + record.lease_ms, record.labelled)
        if len(self._held) > MOST:
            del self._held[next(iter(self._held))]

    def _forget(self, key: bytes | None) -> None:
        """Nobody writes tombstones; retention removes what is old, and time what a reader kept of it."""


class Leases:
    """The leases of one gateway's sessions, beside those of the others. ``key`` is that of an item of the desk."""

    def __init__(self, cluster: Cluster, topic: str, clock: Clock, producer: OpenProducer) -> None:
        self._topic = topic
        self._clock = clock
        self._producer = producer
        self._open: OpenLog[LeaseLog] = OpenLog(lambda: LeaseLog(cluster, topic))
        self._log: LeaseLog | None = None

    def holder_of(self, key: bytes) -> str | None:
        """Who held the text when the log was read last."""
        return None if self._log is None else self._log.holder_of(_named(key), self._clock.now_ms())

    async def refresh(self) -> None:
        """Read what others wrote. Raises a KafkaError."""
        self._log = await self._open.get()

    async def claim(self, keys: Collection[bytes], who: str) -> set[bytes]:
        """Take texts for ``who`` where nobody else has them; those that ``who`` has now. Raises a KafkaError."""
        await self.refresh()
        now_ms = self._clock.now_ms()
        log = self._log
        wanted = [key for key in keys if log is None or self._short(log, key, who, now_ms)]
        if wanted:
            await self._write(wanted, who, LEASE_S)
            await self.refresh()
        held = {key for key in keys if self.holder_of(key) == who}
        await self._write([key for key in wanted if key not in held], who, 0.0)
        return held

    def _short(self, log: LeaseLog, key: bytes, who: str, now_ms: int) -> bool:
        """Whether the text is nobody's, or this session's for less than half of a lease."""
        holder, left_ms = log.holder_of(_named(key), now_ms), log.left_ms(_named(key), now_ms)
        return holder is None or (holder == who and left_ms < LEASE_S * 500)

    async def finish(self, keys: Iterable[bytes], who: str) -> None:
        """The texts of ``who`` have a label now. Raises a KafkaError."""
        await self._write(keys, who, LABELLED_S, labelled=True)

    async def reopen(self, keys: Iterable[bytes], who: str) -> None:
        """Their labels were taken back: ``who`` looks at them again. Raises a KafkaError."""
        await self._write(keys, who, LEASE_S)

    async def release(self, who: str) -> None:
        """Free what ``who`` holds. Raises a KafkaError."""
        await self.refresh()
        if self._log is not None:
            await self._write_named(self._log.held_by(who), who, 0.0)

    async def stop(self) -> None:
        await self._open.stop()

    async def _write(self, keys: Iterable[bytes], who: str, seconds: float, *, labelled: bool = False) -> None:
        await self._write_named(map(_named, keys), who, seconds, labelled=labelled)

    async def _write_named(self, texts: Iterable[str], who: str, seconds: float, *, labelled: bool = False) -> None:
        records = [
            TextLease(text=text, holder=who, lease_ms=round(seconds * 1000), labelled=labelled) for text in texts
        ]
        if records:
            producer = await self._producer.get()
            sent = [Outgoing(encode_text_lease(one), text_lease_key(one.text, one.holder)) for one in records]
            await producer.send_batch(self._topic, 0, sent)


def _named(key: bytes) -> str:
    return hashlib.sha256(b"text-lease" + key).hexdigest()
