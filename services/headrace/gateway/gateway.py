"""The gateway: publishes the texts of calls, and gives each call its answers. Its parts are put together here."""

from __future__ import annotations

import asyncio
import secrets
import ssl
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from http import HTTPStatus
from socket import socket
from typing import Any, NamedTuple

import msgspec
import uvicorn
from starlette.types import ASGIApp

from headrace.client.publishing import Publisher
from headrace.config.gateway import GatewaySettings
from headrace.core.clock import Clock
from headrace.core.errors import UserError, one_of_all
from headrace.gateway.access import ANYBODY, Access, Identity
from headrace.gateway.answer_follower import AnswerFollower
from headrace.gateway.batches import LOST, UNKNOWN, UNPUBLISHED, Batch, Unanswered
from headrace.gateway.bodies import MAX_KEY_BYTES, Answer, ClassifyItem
from headrace.gateway.calls import BodyReader
from headrace.gateway.connections import ConnectionLimits, limited
from headrace.gateway.guessing import Guesses
from headrace.gateway.idempotency import Claim, Idempotency, Kept, Once, call_header
from headrace.gateway.lookup import Lookup
from headrace.gateway.metrics import GatewayMetrics
from headrace.gateway.ownership import Ownership
from headrace.gateway.problems import ProblemError, busy, invalid
from headrace.gateway.sender import PartitionSender, Queued
from headrace.gateway.streams import AnswerStreams
from headrace.gateway.usage import UsageMeter
from headrace.kafka.aio.producer import partition_of_key
from headrace.kafka.interface import Cluster, KafkaError, Outgoing, UnknownTopicError, connected
from headrace.kafka.reach import Reach, missing_of
from headrace.process.lifecycle import EXIT_SETTINGS
from headrace.process.logs import event
from headrace.process.ports import PortError, listen, why_not
from headrace.registry.compacted_topics import CompactedLog, KeysLog, ModelsLog, UsageWriter
from headrace_schemas.errors import IdTooLargeError, TextTooLargeError, WireError
from headrace_schemas.headers import EXPLAIN, JSON, TENANT, TIMEOUT_MS, Headers
from headrace_schemas.paths import RequestShape, compile_writer
from headrace_schemas.records import ClassifyRequest
from headrace_schemas.topics import DAY_MS, MAX_REQUEST_BYTES, TopicNames

TICK_S = 0.5
LOOK_S = 0.2
"""So often it is looked for API keys that were made or revoked, and for versions."""
PARTITIONS_S = 5.0
TOGETHER = 256
"""So many texts of a call go to one partition together; of more, each partition gets a part."""
STAYS_S = 0.05
"""So long texts of small calls go to one partition: a batch costs Kafka, worker and gateway nearly as much for one."""
ANSWER_S = 5.0
"""Behind the drain, how long calls have to be told how their texts stand."""
_OVERHEAD = 512
"""Bytes of a record beside its key, value and headers, and more."""


class TlsError(UserError):
    """The certificate or its key can't be used."""

    exit_code = EXIT_SETTINGS


class Mounted(NamedTuple):
    """The console: what answers below /console, and what ends its streams of events, which a drain would wait for."""

    app: ASGIApp
    end_streams: Callable[[], Awaitable[None]]


class Limits(NamedTuple):
    """What the sections of other rooms say of requests: bytes of a text and of a record."""

    max_text_bytes: int
    max_request_size: int


class Gateway:
    """``trusted`` are the public keys that versions have to be signed by, where there are some."""

    def __init__(
        self,
        *,
        cluster: Cluster,
        topics: TopicNames,
        settings: GatewaySettings,
        shape: RequestShape,
        max_request_size: int,
        model_name: str,
        clock: Clock,
        metrics: GatewayMetrics,
        process: str,
        away_after: float = 10.0,
        delivery_s: float = 30.0,
        idempotency_ms: int = DAY_MS,
        trusted: Sequence[str] = (),
    ) -> None:
        self.settings = settings
        self.topics = topics
        self.cluster = cluster
        self.model_name = model_name
        self.clock = clock
        self.metrics = metrics
        self.trusted = tuple(trusted)
        self.limits = Limits(shape.max_text_bytes, min(max_request_size, MAX_REQUEST_BYTES) - _OVERHEAD)
        self.bodies = BodyReader(
            settings.max_body_bytes, settings.body_timeout, settings.max_held_bytes, "gateway.max_body_bytes"
        )
        self.publisher = Publisher(cluster.producer, topics.requests)
        self.follower = AnswerFollower(cluster, topics.results, topics.requests, clock)
        self.lookup = Lookup(cluster, topics.requests, topics.results)
        self.idempotency = Idempotency(
            cluster,
            topic=topics.idempotency,
            requests=topics.requests,
            lookup=self.lookup,
            clock=clock,
            retention_ms=idempotency_ms,
            most=settings.max_idempotency_keys,
            delivery_s=delivery_s,
            randomness=lambda: secrets.token_hex(16),
        )
        self.models = ModelsLog(cluster, topics.models)
        self.streams = AnswerStreams(cluster, topics.results, clock)
        keys = KeysLog(cluster, topics.keys) if settings.keys else None
        self.guessed_places = Guesses(settings.guesses, "places of others", clock)
        self.access = Access(
            None if keys is None else keys.keys,
            settings.realm,
            clock,
            guesses=Guesses(settings.guesses, "wrong API keys", clock),
            share=lambda: self.share,
        )
        self._keys = keys
        self._usage_producer = cluster.producer() if settings.keys else None
        writer = None if self._usage_producer is None else UsageWriter(self._usage_producer, topics.usage)
        self.usage = UsageMeter(writer, process, clock)
        self._encode = compile_writer(shape)
        self._ownership = Ownership(cluster, topics.results, settings.group, clock)
        self._asking = cluster.consumer()
        self._reach = Reach(cluster, clock=clock, away_after=away_after)
        self._senders: dict[int, PartitionSender] = {}
        self._partitions: tuple[int, ...] = ()
        self._turn = 0
        self._few = 0
        self._stays_until_s = 0.0
        self._waiting = 0
        self._waiting_of: dict[str, int] = {}
        self._active: set[Batch] = set()
        self._started = False
        self._draining = False
        self._server: uvicorn.Server | None = None
        self._console: Mounted | None = None
        metrics.broker.follow(lambda: self._reach.connected)
        metrics.follow(
            waiting=lambda: self._waiting,
            held=lambda: self.bodies.held,
            connections=lambda: 0 if self._server is None else len(self._server.server_state.connections),
            owned=lambda: len(self._ownership.partitions),
            read=lambda: len(self.follower.reads),
            lag=self.follower.lag_s,
            streams=lambda: self.streams.count,
        )

    def serve_console(self, console: Mounted) -> None:
        """Answer below /console too, from the next :meth:`run` on."""
        self._console = console

    @property
    def unready(self) -> str | None:
        """Why no call is answered now, in words; None when they are."""
        if not self._started:
            return "starting"
        return "it ends" if self._draining else self._reach.unready

    @property
    def partitions(self) -> tuple[int, ...]:
        """The partitions of the requests."""
        return self._partitions

    @property
    def owned(self) -> frozenset[int]:
        """The results partitions that the group gave to this gateway."""
        return self._ownership.partitions

    @property
    def share(self) -> float:
        """The part of the partitions, and so of each quota, that is this gateway's; that of one where it has none."""
        return max(1, len(self.owned)) / max(1, len(self._partitions))

    async def run(self, stop: asyncio.Event, listening: Callable[[str], None] = lambda _: None) -> None:
        """Serve until ``stop``, then drain. ``listening`` is told the address. Raises PortError and KafkaErrors."""
        taken = self._listen()
        async with AsyncExitStack() as stack:
            stack.callback(taken.close)
            await self._start(stack)
            server = self._server = _Server(self._config())
            serving = asyncio.create_task(server.serve(sockets=[taken]), name="http")
            work = [asyncio.create_task(one) for one in self._work()]
            stopped = asyncio.create_task(stop.wait(), name="stop")
            try:
                self._started = True
                address = self._address(taken)
                event("gateway.listening", address=address, keys=self.settings.keys)
                listening(address)
                await asyncio.wait([stopped, serving, *work], return_when=asyncio.FIRST_COMPLETED)
                await self._drain(server, serving)
                if failed := [error for one in work if one.done() and (error := one.exception()) is not None]:
                    raise one_of_all([error for error in failed if isinstance(error, Exception)])
            finally:
                for one in (stopped, serving, *work):
                    one.cancel()
                await asyncio.wait([stopped, serving, *work])
                await self.usage.write()

    async def classify(
        self,
        identity: Identity,
        items: Sequence[ClassifyItem],
        *,
        timeout_s: float,
        expires: bool,
        waits: bool,
        explains: bool = False,
        once: Once | None = None,
    ) -> Batch:
        """Publish texts and wait, at most ``timeout_s``, for their answers or, unless it ``waits``, their places.

        With ``expires`` texts are answered `expired` past that time. What was published ``once`` is not published
        again. Raises ProblemError, when nothing was published.
        """
        self.check_serving()
        kept = None if once is None else await self.idempotency.check(once)
        records = self._records(items, self._headers(identity, timeout_s if expires else None, explains=explains))
        self._check_room(identity, len(items))
        if kept is None:
            self.access.take(identity, len(items))
            self.usage.count(identity, len(items), sum(len(one.text.encode()) for one in items))
        began_s = self.clock.monotonic()
        batch = Batch(len(items), waits=waits)
        ends_s = began_s + timeout_s
        with self._counted(identity, batch, len(items)):
            if once is None:
                for number, queued in self._divided(batch, records).items():
                    self._sender(number).put(queued)
                await self._wait(batch, ends_s)
            else:
                await self._publish_once(batch, records, once, kept)
                await self._wait(batch, ends_s, looks_up=any(batch.places))
        return batch

    async def _publish_once(self, batch: Batch, records: Sequence[Outgoing], once: Once, kept: Kept | None) -> None:
        """Publish what no call with this key has published. Raises ProblemError and KafkaErrors, before that."""
        parts = self._divided(batch, records)
        got = kept or await self.idempotency.claim(once, len(records), sorted(parts))
        if isinstance(got, Kept):
            batch.replayed = True
            places = await self.idempotency.places(got, once)
            for index in range(len(records)):
                if (place := places.get(index)) is not None:
                    batch.place(index, place)
                else:
                    batch.end(index, Unanswered(LOST, "the log holds its request no more"))
            return
        batch.until_s = got.until_s
        for index, place in got.found.items():
            batch.place(index, place)
        self.idempotency.settle_when_published(got, batch)
        for number, queued in _marked(parts, got).items():
            self._sender(number).put(queued)

    async def _wait(self, batch: Batch, ends_s: float, *, looks_up: bool = False) -> None:
        """Wait until ``ends_s`` for what ``batch`` waits for; with ``looks_up`` answers may be there already."""
        try:
            if looks_up and batch.waits:
                await self._look_up(batch)
            left_s = max(0.0, ends_s - self.clock.monotonic())
            if batch.waits:
                timer = asyncio.get_running_loop().call_later(left_s, batch.stop_waiting)
                try:
                    await batch.answered
                finally:
                    timer.cancel()
            else:
                # Unlike a timeout this cancels nothing that others wait for too.
                await asyncio.wait([batch.published], timeout=left_s)
        finally:
            batch.abandoned = True
            self.follower.forget(batch)

    async def _look_up(self, batch: Batch) -> None:
        """Look for the answers of texts that have a place, which may have come before they were waited for."""
        by_partition: dict[int, dict[int, int]] = {}
        for index, place in enumerate(batch.places):
            if place is not None:
                by_partition.setdefault(place[0], {})[place[1]] = index
        await self.follower.begin(by_partition)
        for number, offsets in by_partition.items():
            for offset, index in offsets.items():
                self.follower.wait(number, offset, batch, index)
            found, highest = await self.lookup.answers(number, offsets)
            for offset, index in offsets.items():
                if (answer := found.get(offset)) is not None:
                    batch.end(index, answer.result)
                elif offset < highest:
                    batch.end(index, Unanswered(LOST, f"request {offset} was passed over: later ones were answered"))

    async def wait_for(self, batch: Batch, timeout_s: float) -> None:
        """Wait, at most ``timeout_s``, until ``batch``, which the follower knows, has its answer."""
        self._active.add(batch)
        try:
            if not self._draining:
                async with asyncio.timeout(timeout_s):
                    await batch.answered
        except TimeoutError:
            pass
        finally:
            self._active.discard(batch)

    def check_published(self, answers: Sequence[Answer]) -> None:
        """Raise ProblemError where texts have no place in the log; it has ``answers`` where others have one."""
        missing = [one for one in answers if one.place is None]
        if not missing:
            return
        code = UNKNOWN if any(one.status == UNKNOWN for one in missing) else UNPUBLISHED
        reason = next((one.reason for one in missing if one.reason), "Kafka did not acknowledge them in time")
        known = "it is unknown whether they were published" if code == UNKNOWN else "they were not published"
        raise busy(
            f"Of {len(answers)} texts {len(missing)} have no place in the log: {reason}; {known}.",
            self.wait_s,
            code=f"publish-{code}",
            answers=answers if len(missing) < len(answers) else (),
        )

    @property
    def wait_s(self) -> float:
        """In how many seconds it is worth to come again: the lag of the answers, at least a second."""
        return max(1.0, self.follower.lag_s())

    def check_serving(self) -> None:
        """Raise ProblemError while no call is taken."""
        if self._draining:
            raise busy("This gateway is about to end; come again, and another one answers.", 1.0, code="draining")
        if (away := self._reach.away) is not None:
            raise busy(f"{away}.", self.wait_s, code="kafka-away")

    def _check_room(self, identity: Identity, texts: int) -> None:
        most = self.settings.max_waiting
        if self._waiting and self._waiting + texts > most:
            raise busy(f"{self._waiting:,} texts wait for their answers (gateway.max_waiting).", self.wait_s)
        # One caller can't take all the room of the others.
        of_key = self._waiting_of.get(identity.id, 0)
        if identity is not ANYBODY and of_key and of_key + texts > most // 2:
            raise ProblemError(
                HTTPStatus.TOO_MANY_REQUESTS,
                "waiting",
                f"{of_key:,} texts of this API key wait for their answers, half of what this gateway holds.",
                limit=most // 2,
                wait_s=self.wait_s,
            )

    @contextmanager
    def _counted(self, identity: Identity, batch: Batch, texts: int) -> Iterator[None]:
        began_s = self.clock.monotonic()
        self._waiting += texts
        self._waiting_of[identity.id] = self._waiting_of.get(identity.id, 0) + texts
        self._active.add(batch)
        try:
            yield
        finally:
            self._active.discard(batch)
            self._waiting -= texts
            self._waiting_of[identity.id] -= texts
            if not self._waiting_of[identity.id]:
                del self._waiting_of[identity.id]
            self.metrics.waited(self.clock.monotonic() - began_s)

    @staticmethod
    def _headers(identity: Identity, expires_s: float | None, *, explains: bool) -> Headers:
        return (
            *(() if identity.tenant is None else ((TENANT, identity.tenant.encode()),)),
            *(() if expires_s is None else ((TIMEOUT_MS, b"%d" % max(1, round(expires_s * 1000))),)),
            *(((EXPLAIN, b"1"),) if explains else ()),
        )

    def _records(self, items: Sequence[ClassifyItem], headers: Headers) -> list[Outgoing]:
        single, records = len(items) == 1, []
        for number, item in enumerate(items):
            where = "" if single else f"texts[{number}]."
            try:
                value = self._encode(ClassifyRequest(text=item.text, id=item.id), JSON)
            except WireError as error:
                raise self._refused(error, where) from error
            key = None if item.key is None else item.key.encode("utf-8", "surrogatepass")
            if key is not None and len(key) > MAX_KEY_BYTES:
                raise invalid(f"The key has {len(key):,} bytes.", field=f"{where}key", limit=MAX_KEY_BYTES)
            if len(value) + len(key or b"") > self.limits.max_request_size:
                raise invalid(
                    "The text takes more bytes than a record may have.",
                    field=f"{where}text",
                    limit=self.limits.max_request_size,
                )
            records.append(Outgoing(value, key, headers))
        return records

    def _refused(self, error: WireError, where: str) -> ProblemError:
        field = "id" if isinstance(error, IdTooLargeError) else "text"
        limit = self.limits.max_text_bytes if isinstance(error, TextTooLargeError) else None
        return invalid(f"{where}{field} {error.message}", field=f"{where}{field}", limit=limit)

    def _divided(self, batch: Batch, records: Sequence[Outgoing]) -> dict[int, list[Queued]]:
        """Where each text goes: to the partition of its key, or to some of those that this gateway reads."""
        by_partition: dict[int, list[Queued]] = {}
        unkeyed: list[Queued] = []
        for index, record in enumerate(records):
            one = Queued(record, batch, index)
            if record.key is None:
                unkeyed.append(one)
            else:
                by_partition.setdefault(partition_of_key(record.key, len(self._partitions)), []).append(one)
        if unkeyed:
            few = len(unkeyed) < TOGETHER
            parts = [self._partition_of_few()] if few else self._own_partitions()
            size = max(TOGETHER, -(-len(unkeyed) // len(parts)))
            for part, at in enumerate(range(0, len(unkeyed), size)):
                by_partition.setdefault(parts[part], []).extend(unkeyed[at : at + size])
        return by_partition

    def _partition_of_few(self) -> int:
        """Where few texts go: for STAYS_S to one partition, so that they share a batch with what others send meanwhile;
        then, or where enough are queued there, to the least busy one.
        """
        now_s = self.clock.monotonic()
        sender = self._senders.get(self._few)
        if now_s >= self._stays_until_s or (sender is not None and sender.queued >= TOGETHER):
            self._few = self._own_partitions()[0]
            self._stays_until_s = now_s + STAYS_S
        return self._few

    def _own_partitions(self) -> list[int]:
        """Where texts without a key go: the least busy first. While the group has given none, any."""
        own = [number for number in self._partitions if number in self.owned] or list(self._partitions)
        self._turn += 1
        turned = [own[(at + self._turn) % len(own)] for at in range(len(own))]
        return sorted(turned, key=lambda number: sender.queued if (sender := self._senders.get(number)) else 0)

    def _sender(self, number: int) -> PartitionSender:
        if (sender := self._senders.get(number)) is None:
            sender = self._senders[number] = PartitionSender(number, self.publisher, self.follower, self.clock)
        return sender

    async def _start(self, stack: AsyncExitStack) -> None:
        await stack.enter_async_context(connected(self._asking))
        names = self.topics
        keys = (names.keys,) if self._keys is not None else ()
        needed = (names.requests, names.results, names.models, names.idempotency, *keys)
        if missing := await missing_of(self._asking, needed):
            raise UnknownTopicError(f"There is no topic {', '.join(missing)}. `headrace topics apply` creates it.")
        stack.push_async_callback(self.lookup.stop)
        stack.push_async_callback(self.streams.stop)
        await stack.enter_async_context(connected(self.follower))
        stack.push_async_callback(self.publisher.stop)
        await self.publisher.start()
        await stack.enter_async_context(connected(self.idempotency))
        stack.push_async_callback(self._stop_senders)
        await stack.enter_async_context(connected(self.models))
        if self._keys is not None:
            await stack.enter_async_context(connected(self._keys))
        if self._usage_producer is not None:
            await stack.enter_async_context(connected(self._usage_producer))
        self._partitions = tuple(sorted(await self.publisher.partitions()))
        await stack.enter_async_context(connected(self._ownership))

    async def _stop_senders(self) -> None:
        for sender in self._senders.values():
            await sender.stop()

    def _work(self) -> list[Coroutine[Any, Any, None]]:
        logs: list[CompactedLog[Any]] = [self.models, *((self._keys,) if self._keys is not None else ())]
        return [
            self.follower.run(),
            self._ownership.run(),
            self._reach.watch(lambda: missing_of(self._asking, (self.topics.requests, self.topics.results))),
            self._tick(),
            self.usage.run(),
            self.idempotency.log.run(),
            *(self._follow(log) for log in logs),
        ]

    async def _tick(self) -> None:
        """Measure the answers, begin to read what the group gave, and look for partitions that were added."""
        last_s = looked_s = self.clock.monotonic()
        while True:
            await self.clock.sleep(TICK_S)
            now_s = self.clock.monotonic()
            self.follower.tick(now_s - last_s)
            last_s = now_s
            self.follower.owned = self.owned
            try:
                await self.follower.begin(self.owned)
                if now_s - looked_s > PARTITIONS_S:
                    looked_s = now_s
                    self._partitions = tuple(sorted(await self.publisher.partitions())) or self._partitions
            except KafkaError as error:
                event("gateway.not-looked", level="debug", error=str(error))

    async def _follow(self, log: CompactedLog[Any]) -> None:
        while True:
            await self.clock.sleep(LOOK_S)
            try:
                await log.look()
            except KafkaError as error:
                event("gateway.not-looked", level="debug", error=str(error))

    async def _drain(self, server: uvicorn.Server, serving: asyncio.Task[None]) -> None:
        """Take no new call, and wait for answers; whoever waits past that is told the places of its texts."""
        self._draining = True
        server.should_exit = True
        self.streams.end_all("this gateway ends")
        event("gateway.draining", waiting=self._waiting)
        if self._console is not None:
            await self._console.end_streams()
        await asyncio.wait([serving], timeout=self.settings.drain)
        for batch in self._active:
            batch.give_up()
        await asyncio.wait([serving], timeout=ANSWER_S)
        event("gateway.drained", waiting=self._waiting)

    def _listen(self) -> socket:
        host, port = self.settings.host, self.settings.port
        try:
            return listen(host.strip("[]"), port)
        except OSError as error:
            raise PortError(
                f"The gateway can't listen on {host}:{port}: {why_not(error)}. Set gateway.port to another, or to 0 "
                "for any free one (the host is gateway.host)."
            ) from error

    def _address(self, taken: socket) -> str:
        host = f"[{self.settings.host}]" if ":" in self.settings.host.strip("[]") else self.settings.host
        return f"{'https' if self.settings.tls_certfile else 'http'}://{host}:{taken.getsockname()[1]}"

    def _config(self) -> uvicorn.Config:
        from headrace.gateway.app import App  # noqa: PLC0415 - its endpoints are called with this class

        settings = self.settings
        password = settings.tls_key_password
        config = uvicorn.Config(
            App(self, None if self._console is None else self._console.app),
            http=limited(
                ConnectionLimits(
                    connections=settings.max_connections,
                    head_bytes=settings.max_header_bytes,
                    head_s=settings.head_timeout,
                    write_s=settings.write_timeout,
                )
            ),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=bool(settings.proxies),
            forwarded_allow_ips=list(settings.proxies),
            server_header=False,
            timeout_keep_alive=max(1, round(settings.keep_alive)),
            timeout_graceful_shutdown=round(settings.drain + ANSWER_S) + 1,
            h11_max_incomplete_event_size=settings.max_header_bytes,
            ssl_certfile=settings.tls_certfile,
            ssl_keyfile=settings.tls_keyfile,
            ssl_keyfile_password=None if password is None else password.reveal(),
        )
        try:
            config.load()
        except (OSError, ssl.SSLError) as error:
            raise TlsError(
                f"gateway.tls_certfile and gateway.tls_keyfile can't be used: {error.strerror or error}."
            ) from None
        return config


def _marked(parts: dict[int, list[Queued]], claim: Claim) -> dict[int, list[Queued]]:
    """The texts of a call that is done once, without those that are published already, each with its header."""
    key = claim.record.key
    return {
        number: [
            one._replace(
                record=msgspec.structs.replace(one.record, headers=(*one.record.headers, call_header(key, one.number)))
            )
            for one in queued
            if one.number not in claim.found
        ]
        for number, queued in parts.items()
    }


class _Server(uvicorn.Server):
    """Leaves signals to the process, which has told this gateway to stop already."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
