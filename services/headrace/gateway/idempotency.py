"""Calls with an Idempotency-Key: published once, whichever gateway they come to and whichever dies over them.

A call is claimed on classify.idempotency before its requests are published: the first claim in the log holds. When all
requests are acknowledged, a second record says where they lie, and a call with the same key gets the answers to those.
A claim that nothing follows is left by a gateway that died, or still tries. Nobody hands a text to Kafka later than
PUBLISH_S after its claim, and Kafka's client gives up after its delivery timeout. Once both are over, another call with
the key takes the claim over: it looks for the requests by their header, from where the log ended at the first claim,
and publishes those that are missing. Until then it is told to come again.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from typing import NamedTuple

import msgspec

from headrace.client.publishing import Publisher
from headrace.core.clock import Clock
from headrace.gateway.answer_follower import AnswerFollower
from headrace.gateway.batches import LOST, UNPUBLISHED, Batch, Place, Unanswered
from headrace.gateway.idempotency_log import CLAIMED, PUBLISHED, RELEASED, SKEW_MS, IdempotencyLog, Kept
from headrace.gateway.lookup import Lookup, tenant_of
from headrace.gateway.problems import ProblemError, busy, invalid
from headrace.gateway.sender import Queued, Senders
from headrace.kafka.interface import Cluster, Consumer, KafkaError, Outgoing, TopicPartition
from headrace.kafka.range_reader import read_ranges
from headrace.process.logs import event
from headrace_schemas.codec import encode_idempotent_call
from headrace_schemas.headers import CALL, Headers
from headrace_schemas.records import IdempotentCall, Span
from headrace_schemas.topics import idempotent_call_key

HEADER = "Idempotency-Key"

PUBLISH_S = 5.0
"""So long after its claim the texts of a call may be handed to Kafka's client."""
MARGIN_S = 5.0
LONGEST_KEY = 255
MOST_SCANNED = 5_000_000
CHUNK = 20_000
SOON_S = 1.0
"""How long a call waits for another one with its key, before it is told to come again."""
OWN_S = 20.0
"""How long a gateway waits until it reads the claim that it has written itself."""
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


class Claim(NamedTuple):
    """The right to publish a call until ``until_s`` (monotonic); ``found`` has the places of texts that are published
    already, by their numbers.
    """

    record: IdempotentCall
    until_s: float
    found: Mapping[int, Place]


class Idempotency:
    """``delivery_s`` is how long Kafka's client tries to publish; ``randomness`` gives hexadecimal digits.

    ``count`` is told what becomes of each call: it is `published`, `repeated` (answered again) or `refused`.
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        topic: str,
        requests: str,
        lookup: Lookup,
        follower: AnswerFollower,
        senders: Senders,
        clock: Clock,
        retention_ms: int,
        most: int,
        delivery_s: float,
        randomness: Callable[[], str],
        count: Callable[[str], None],
    ) -> None:
        self.log = IdempotencyLog(cluster, topic, clock, retention_ms=retention_ms, most=most)
        self._publisher = Publisher(cluster.producer, topic)
        self._looking = cluster.consumer()
        self._requests = requests
        self._lookup = lookup
        self._follower = follower
        self._senders = senders
        self._count = count
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
        with self._refusals():
            return await self._check(once)

    async def publish(self, batch: Batch, records: Sequence[Outgoing], once: Once, kept: Kept | None) -> None:
        """Publish what no call with this key has published, or give ``batch`` the places of what one has: ``kept`` is
        what :meth:`check` returned. Raises ProblemError and KafkaErrors, before anything was published.
        """
        parts = self._senders.divided(batch, records)
        with self._refusals():
            got = kept or await self.claim(once, len(records), sorted(parts))
        if isinstance(got, Kept):
            batch.replayed = True
            places = await self.places(got, once)
            for index in range(len(records)):
                if (place := places.get(index)) is not None:
                    batch.place([index], place[0], [place[1]])
                else:
                    batch.end(index, Unanswered(LOST, "the log holds its request no more"))
            self._count("repeated")
            return
        batch.until_s = got.until_s
        for index, place in got.found.items():
            batch.place([index], place[0], [place[1]])
        self.settle_when_published(got, batch)
        self._senders.put(_marked(parts, got))
        self._count("published")

    async def look_up(self, batch: Batch) -> None:
        """Look for the answers of texts that have a place, which may have come before they were waited for."""
        by_partition: dict[int, dict[int, int]] = {}
        for index, place in enumerate(batch.places):
            if place is not None:
                by_partition.setdefault(place[0], {})[place[1]] = index
        await self._follower.begin(by_partition)
        for number, offsets in by_partition.items():
            for offset, index in offsets.items():
                self._follower.wait(number, offset, batch, index)
            found, highest = await self._lookup.answers(number, offsets)
            for offset, index in offsets.items():
                if (answer := found.get(offset)) is not None:
                    batch.end(index, answer.result)
                elif offset < highest:
                    batch.end(index, Unanswered(LOST, f"request {offset} was passed over: later ones were answered"))

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except ProblemError:
            self._count("refused")
            raise

    async def _check(self, once: Once) -> Kept | None:
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
        if (kept := await self._check(once)) is None:
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


def _marked(parts: Mapping[int, Queued], claim: Claim) -> dict[int, Queued]:
    """The texts of a call that is done once, without those that are published already, each with its header."""
    key = claim.record.key
    marked: dict[int, Queued] = {}
    for number, queued in parts.items():
        left = [
            (at, record) for at, record in zip(queued.numbers, queued.records, strict=True) if at not in claim.found
        ]
        records = [
            msgspec.structs.replace(record, headers=(*record.headers, call_header(key, at))) for at, record in left
        ]
        marked[number] = Queued(queued.batch, [at for at, _ in left], records)
    return marked


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
