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

import uvicorn
from starlette.types import ASGIApp

from headrace.client.publishing import Publisher
from headrace.config.gateway import GatewaySettings
from headrace.core.clock import Clock
from headrace.core.errors import UserError, one_of_all
from headrace.gateway.access import ANYBODY, Access, Identity
from headrace.gateway.answer_follower import AnswerFollower
from headrace.gateway.batches import UNKNOWN, UNPUBLISHED, Batch
from headrace.gateway.bodies import Answer, ClassifyItem
from headrace.gateway.calls import BodyReader
from headrace.gateway.connections import ConnectionLimits, limited
from headrace.gateway.guessing import Guesses
from headrace.gateway.idempotency import Idempotency, Once
from headrace.gateway.lookup import Lookup
from headrace.gateway.metrics import GatewayMetrics
from headrace.gateway.ownership import Ownership
from headrace.gateway.problems import ProblemError, busy
from headrace.gateway.records import Limits, RecordWriter, headers_of
from headrace.gateway.sender import Senders
from headrace.gateway.streams import AnswerStreams
from headrace.gateway.usage import UsageMeter
from headrace.kafka.interface import Cluster, KafkaError, UnknownTopicError, connected
from headrace.kafka.reach import Reach, missing_of
from headrace.kafka.tracing import traced
from headrace.process.lifecycle import EXIT_SETTINGS
from headrace.process.logs import event
from headrace.process.ports import PortError, listen, why_not
from headrace.process.tracing import NO_TRACER, Tracer, exemplar
from headrace.registry.compacted_topics import CompactedLog, KeysLog, ModelsLog, UsageWriter
from headrace_schemas.headers import Headers
from headrace_schemas.paths import RequestShape
from headrace_schemas.topics import DAY_MS, TopicNames

TICK_S = 0.5
LOOK_S = 0.2
"""So often it is looked for API keys that were made or revoked, and for versions."""
PARTITIONS_S = 5.0
ANSWER_S = 5.0
"""Behind the drain, how long calls have to be told how their texts stand."""


class TlsError(UserError):
    """The certificate or its key can't be used."""

    exit_code = EXIT_SETTINGS


class Mounted(NamedTuple):
    """The console: what answers below /console, and what ends its streams of events, which a drain would wait for."""

    app: ASGIApp
    end_streams: Callable[[], Awaitable[None]]


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
        tracer: Tracer = NO_TRACER,
    ) -> None:
        self.settings = settings
        self.tracer = tracer
        self.topics = topics
        self.cluster = cluster
        self.model_name = model_name
        self.clock = clock
        self.metrics = metrics
        self.trusted = tuple(trusted)
        self.bodies = BodyReader(
            settings.max_body_bytes, settings.body_timeout, settings.max_held_bytes, "gateway.max_body_bytes"
        )
        self.publisher = Publisher(traced(cluster.producer, tracer, (topics.requests,)), topics.requests)
        self.follower = AnswerFollower(cluster, topics.results, topics.requests, clock)
        self.lookup = Lookup(cluster, topics.requests, topics.results)
        self._senders = Senders(
            self.publisher, self.follower, clock, owned=lambda: self.owned, waiting=lambda: self._waiting
        )
        self.idempotency = Idempotency(
            cluster,
            topic=topics.idempotency,
            requests=topics.requests,
            lookup=self.lookup,
            follower=self.follower,
            senders=self._senders,
            clock=clock,
            retention_ms=idempotency_ms,
            most=settings.max_idempotency_keys,
            delivery_s=delivery_s,
            randomness=lambda: secrets.token_hex(16),
            count=metrics.idempotent,
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
        self._writer = RecordWriter(shape, max_request_size)
        self._ownership = Ownership(cluster, topics.results, settings.group, clock)
        self._asking = cluster.consumer()
        self._reach = Reach(cluster, clock=clock, away_after=away_after)
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
            keys=lambda: len(self.idempotency.log),
            oldest_key=self.access.oldest_key_s,
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
        return self._senders.partitions

    @property
    def limits(self) -> Limits:
        """Those of a text and of its record."""
        return self._writer.limits

    @property
    def owned(self) -> frozenset[int]:
        """The results partitions that the group gave to this gateway."""
        return self._ownership.partitions

    @property
    def share(self) -> float:
        """The part of the partitions, and so of each quota, that is this gateway's; that of one where it has none."""
        return max(1, len(self.owned)) / max(1, len(self.partitions))

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
        trace: Headers = (),
    ) -> Batch:
        """Publish texts and wait, at most ``timeout_s``, for their answers or, unless it ``waits``, their places.

        With ``expires`` texts are answered `expired` past that time. What was published ``once`` is not published
        again. The headers ``trace`` go with each text. Raises ProblemError, when nothing was published.
        """
        self.check_serving()
        kept = None if once is None else await self.idempotency.check(once)
        headers = headers_of(identity.tenant, timeout_s if expires else None, explains=explains)
        records, texts = self._writer.records(items, (*headers, *trace)), len(items)
        self._check_room(identity, texts)
        if kept is None:
            self.access.take(identity, texts)
            self.usage.count(identity, items)
        batch, began_s = Batch(texts, waits=waits), self.clock.monotonic()
        self._waiting += texts
        self._waiting_of[identity.id] = self._waiting_of.get(identity.id, 0) + texts
        self._active.add(batch)
        try:
            if once is None:
                self._senders.put(self._senders.divided(batch, records))
            else:
                await self.idempotency.publish(batch, records, once, kept)
                if waits and any(batch.places):
                    await self.idempotency.look_up(batch)
            await self._wait(batch, began_s + timeout_s)
        finally:
            batch.abandoned = True
            self.follower.forget(batch)
            self._active.discard(batch)
            self._waiting -= texts
            self._waiting_of[identity.id] -= texts
            if not self._waiting_of[identity.id]:
                del self._waiting_of[identity.id]
            self.metrics.waited(self.clock.monotonic() - began_s, exemplar(self.tracer.current))
        return batch

    async def _wait(self, batch: Batch, ends_s: float) -> None:
        """Wait until ``ends_s`` for what ``batch`` waits for."""
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
        stack.push_async_callback(self._senders.stop)
        await stack.enter_async_context(connected(self.models))
        if self._keys is not None:
            await stack.enter_async_context(connected(self._keys))
        if self._usage_producer is not None:
            await stack.enter_async_context(connected(self._usage_producer))
        self._senders.partitions = tuple(sorted(await self.publisher.partitions()))
        await stack.enter_async_context(connected(self._ownership))

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
                    self._senders.partitions = tuple(sorted(await self.publisher.partitions())) or self.partitions
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


class _Server(uvicorn.Server):
    """Leaves signals to the process, which has told this gateway to stop already."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
