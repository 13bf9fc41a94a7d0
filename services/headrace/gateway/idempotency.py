"""Calls with an Idempotency-Key: published once, whichever gateway they come to and whichever dies over them.

A call is claimed on classify.idempotency before its requests are published: the first claim in the log holds. When all
requests are acknowledged, a second record says where they lie, and a call with the same key gets the answers to those.
A claim that nothing follows is left by a gateway that died, or still tries. Nobody hands a text to Kafka later than
PUBLISH_S after its claim, and Kafka's client gives up after its delivery timeout. Once both are over, another call with
the key takes the claim over: it looks for the requests by their header, from where the log ended at the first claim,
and publishes those that are missing. Until then it is told to come again.

What a gateway keeps of a key is bounded, and takes its meaning from the log's order and time stamps alone, so all
gateways agree.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import ClassVar, NamedTuple

from headrace.client.publishing import Publisher
from headrace.core.clock import Clock
from headrace.gateway.batches import UNPUBLISHED, Batch, Place, Unanswered
from headrace.gateway.lookup import Lookup, tenant_of
from headrace.gateway.problems import LONGEST_WAIT_S, ProblemError, busy, invalid
from headrace.kafka.interface import (
    Cluster,
    Consumer,
    KafkaError,
    OffsetOutOfRangeError,
    Outgoing,
    Record,
    TopicPartition,
)
from headrace.kafka.range_reader import read_ranges
from headrace.process.logs import Recurring, event
from headrace.registry.compacted_topics import CompactedLog
from headrace_schemas.codec import decode_idempotent_call, encode_idempotent_call
from headrace_schemas.errors import BadTypeError
from headrace_schemas.headers import CALL, Headers
from headrace_schemas.records import IdempotentCall, Span
from headrace_schemas.topics import idempotent_call_key

HEADER = "Idempotency-Key"
CLAIMED = "claimed"
PUBLISHED = "published"
RELEASED = "released"

PUBLISH_S = 5.0
"""So long after its claim the texts of a call may be handed to Kafka's client."""
MARGIN_S = 5.0
MOST_BYTES_EACH = 512
"""What is kept of a key on the average, at most; a call that goes to many partitions takes more, and others less."""
LONGEST_KEY = 255
SKEW_MS = 60_000
MOST_SCANNED = 5_000_000
CHUNK = 20_000
FOLLOW_S = 0.2
SOON_S = 1.0
"""How long a call waits for another one with its key, before it is told to come again."""
OWN_S = 20.0
"""How long a gateway waits until it reads the claim that it has written itself."""
_HEX = re.compile(r"[0-9a-f]{64}")
_KEY = re.compile(rf"[\x21-\x7e]{{1,{LONGEST_KEY}}}")
_QUOTED = re.compile(r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')


class Once(NamedTuple):
    """A call that is to be done once: the digest of its tenant and key, that of what it asks, and its tenant."""

    key: str
    body: str
    tenant: str | None


def once_of(given: str | None, tenant: str | None, path: str, content_type: str, body: bytes) -> Once | None:
    """What the header says, a string in quotes (RFC 8941) or without; None without a header. Raises ProblemError."""
    if given is None:
        return None
    quoted = _QUOTED.fullmatch(given)
    key = given if quoted is None else re.sub(r"\\(.)", r"\1", quoted[1])
    if not _KEY.fullmatch(key) or (quoted is None and key.startswith('"')):
        raise invalid(
            f"{HEADER} is a string of 1 to {LONGEST_KEY} visible characters of ASCII.", field=HEADER, limit=LONGEST_KEY
        )
    asked = _digest(path.encode(), content_type.encode(), body)
    return Once(_digest(repr(tenant).encode(), key.encode()), asked, tenant)


def _digest(*parts: bytes) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(b"%d:" % len(part) + part)
    return found.hexdigest()


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
        self._position = (await self._consumer.beginning_offsets([self._name]))[self._name]
        await self.refresh()

    def _take_one(self, record: Record) -> None:
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


class Claim(NamedTuple):
    """The right to publish a call until ``until_s`` (monotonic); ``found`` has the places of texts that are published
    already, by their numbers.
    """

    record: IdempotentCall
    until_s: float
    found: Mapping[int, Place]


class Idempotency:
    """``delivery_s`` is how long Kafka's client tries to publish; ``randomness`` gives hexadecimal digits."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        topic: str,
        requests: str,
        lookup: Lookup,
        clock: Clock,
        retention_ms: int,
        most: int,
        delivery_s: float,
        randomness: Callable[[], str],
    ) -> None:
        self.log = IdempotencyLog(cluster, topic, clock, retention_ms=retention_ms, most=most)
        self._publisher = Publisher(cluster.producer, topic)
        self._looking = cluster.consumer()
        self._requests = requests
        self._lookup = lookup
        self._clock = clock
        self._most = most
        self._lease_s = PUBLISH_S + delivery_s + MARGIN_S
        self._randomness = randomness
        self._working: set[str] = set()
        self._settling: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Read what is kept. Raises a KafkaError."""
        await self._looking.start()
        await self._publisher.start()
        await self.log.start()

    async def stop(self) -> None:
        """End, once what is settled is written."""
        if self._settling:
            await asyncio.wait(self._settling)
        await self.log.stop()
        await self._publisher.stop()
        await self._looking.stop()

    async def check(self, once: Once) -> Kept | None:
        """What was published for this key, None where the call is to be claimed. Raises ProblemError for another body
        (422), for a call that is still handled after SOON_S (409), and where too many keys are kept (429).
        """
        ends_s = self._clock.monotonic() + SOON_S
        while True:
            try:
                return self._look(once)
            except ProblemError as problem:
                if problem.status != HTTPStatus.CONFLICT or self._clock.monotonic() >= ends_s:
                    raise
            await self.log.moved()

    def _look(self, once: Once) -> Kept | None:
        if once.key in self._working:
            raise _handled(1.0)
        kept = self.log.find(once.key)
        if kept is None:
            self._check_room(once)
            return None
        if kept.record.body != once.body:
            raise ProblemError(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                "idempotency-mismatch",
                f"This {HEADER} was sent before, with another body or to another path. A new call needs a new key.",
                field=HEADER,
            )
        if kept.record.state == PUBLISHED:
            return kept
        left_s = kept.seen_s + self._lease_s - self._clock.monotonic()
        if kept.record.state != RELEASED and left_s > 0:
            raise _handled(left_s)
        return None

    async def claim(self, once: Once, texts: int, partitions: Sequence[int]) -> Claim | Kept:
        """Claim the call, and look for what was published by an attempt before; what is kept where another gateway was
        first and has published it. Raises ProblemError (409) where it has not yet, and KafkaErrors; then nothing was
        published.
        """
        self._working.add(once.key)
        try:
            before = self.log.find(once.key)
            # Nobody may publish this call between the look and a claim that holds.
            found = {} if before is None else await self.places(before, once)
            until_s = self._clock.monotonic() + PUBLISH_S
            names = [TopicPartition(self._requests, number) for number in partitions]
            ends = await self._looking.end_offsets(names)
            record = IdempotentCall(
                key=once.key,
                attempt=self._randomness(),
                body=once.body,
                state=CLAIMED,
                texts=texts,
                spans=tuple(Span(name.partition, end) for name, end in sorted(ends.items())),
                after=self.log.attempt_of(once.key),
                tenant=once.tenant,
            )
            published = await self._publisher.publish(_outgoing(record), 0)
            async with asyncio.timeout(OWN_S):
                await self.log.read_to(published.offset)
            kept = self.log.find(once.key)
            if kept is not None and kept.record.attempt != record.attempt:
                self._working.discard(once.key)
                return await self._first(once)
            if before is not None:
                event("idempotency.taken_over", requests=texts, found=len(found))
            return Claim(record, until_s, found)
        except TimeoutError:
            self._working.discard(once.key)
            raise busy("The claim to this call was not read in time.", 1.0) from None
        except BaseException:
            self._working.discard(once.key)
            raise

    async def _first(self, once: Once) -> Kept:
        """What another attempt published, which was first. Raises ProblemError as :meth:`check` does."""
        if (kept := await self.check(once)) is None:
            raise _handled(1.0)
        return kept

    def settle_when_published(self, claim: Claim, batch: Batch) -> None:
        """Write where the requests of ``batch`` lie as soon as that is known."""
        task = asyncio.create_task(self._settle(claim, batch), name="settle")
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    async def places(self, kept: Kept, once: Once) -> dict[int, Place]:
        """Where each text of a call was published, by its number; those that are not there are left out."""
        texts = kept.record.texts
        # Nothing was handed over behind the lease of the last claim.
        until_ms = kept.last_ms + round(self._lease_s * 1000) + SKEW_MS
        found: dict[int, Place] = {}
        async with self._lookup.consumer() as consumer:
            for number, (first, last) in sorted(kept.spans.items()):
                await self._scan(consumer, number, first, last, once, texts, until_ms, found)
                if len(found) == texts:
                    break
        return found

    async def _scan(
        self,
        consumer: Consumer,
        number: int,
        first: int,
        last: int | None,
        once: Once,
        texts: int,
        until_ms: int,
        found: dict[int, Place],
    ) -> None:
        name = TopicPartition(self._requests, number)
        if number not in await consumer.partitions_of(self._requests):
            return
        begin = (await consumer.beginning_offsets([name]))[name]
        end = (await consumer.end_offsets([name]))[name]
        start, end = max(begin, first), min(end, first + MOST_SCANNED, end if last is None else last + 1)
        tenant = None if once.tenant is None else once.tenant.encode()
        while start < end:
            upto = min(start + CHUNK, end)
            async for records in read_ranges(consumer, {name: start}, {name: upto}):
                for record in records:
                    text = _number_of(record.headers, once.key)
                    if text is not None and text < texts and tenant_of(record.headers) == tenant:
                        found.setdefault(text, (number, record.offset))
                    if last is None and record.timestamp > until_ms:
                        end = start
            start = upto

    async def _settle(self, claim: Claim, batch: Batch) -> None:
        record = claim.record
        try:
            await asyncio.wait([batch.published])
            spans: dict[int, Span] = {}
            for place in batch.places:
                if place is not None:
                    known = spans.get(place[0], Span(place[0], place[1], place[1]))
                    spans[place[0]] = Span(place[0], min(known.first, place[1]), max(known.last or 0, place[1]))
            missing = [outcome for place, outcome in zip(batch.places, batch.outcomes, strict=True) if place is None]
            if missing and not all(isinstance(one, Unanswered) and one.status == UNPUBLISHED for one in missing):
                # Nobody knows what becomes of them. Another call looks for them once that is certain.
                return
            settled = IdempotentCall(
                key=record.key,
                attempt=record.attempt,
                body=record.body,
                state=RELEASED if missing else PUBLISHED,
                texts=record.texts,
                spans=record.spans if missing else tuple(spans.values()),
                after=record.after,
                tenant=record.tenant,
            )
            appended = await self._publisher.publish(_outgoing(settled), 0)
            async with asyncio.timeout(OWN_S):
                await self.log.read_to(appended.offset)
        except (KafkaError, TimeoutError) as error:
            event("idempotency.unsettled", level="warning", error=str(error))
        finally:
            self._working.discard(record.key)

    def _check_room(self, once: Once) -> None:
        of_tenant = self.log.of_tenant.get(once.tenant, 0)
        most = self._most if once.tenant is None else max(1, self._most // 2)
        if len(self.log) + len(self._working) >= self._most or of_tenant >= most:
            raise ProblemError(
                HTTPStatus.TOO_MANY_REQUESTS,
                "idempotency-full",
                f"{of_tenant:,} of {len(self.log):,} keys that are kept are this tenant's; no more are taken "
                "(gateway.max_idempotency_keys). Come again, or leave the header out.",
                field=HEADER,
                limit=most,
                wait_s=self.log.frees_in_s(),
            )


def call_header(key: str, number: int) -> tuple[str, bytes]:
    """The header by which the request of text ``number`` is found again."""
    return CALL, f"{key}/{number}".encode()


def _number_of(headers: Headers, key: str) -> int | None:
    for name, value in headers:
        if name == CALL and value is not None and value.startswith(key.encode() + b"/") and len(value) < 80:
            digits = value[len(key) + 1 :]
            return int(digits) if digits.isdigit() else None
    return None


def _outgoing(record: IdempotentCall) -> Outgoing:
    return Outgoing(encode_idempotent_call(record), idempotent_call_key(record.key, record.attempt))


def _handled(wait_s: float) -> ProblemError:
    return ProblemError(
        HTTPStatus.CONFLICT,
        "idempotency-handled",
        f"A call with this {HEADER} is still being handled; come again for its answer.",
        field=HEADER,
        wait_s=max(1.0, wait_s),
    )
