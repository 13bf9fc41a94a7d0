"""`GET /v1/answers`: answers as server-sent events, each once, also over reconnects.

An event's id is where the stream stands in every partition, the position and the highest request offset together, so
that a browser which connects again goes on behind it (``Last-Event-ID``). One reader serves all streams; a stream that
begins in the past catches up with a reader of its own first. A stream that can't keep up is ended, and goes on by its
last id.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from headrace.client.arguments import AnswerLogError
from headrace.client.reading import Answer as LogAnswer
from headrace.client.reading import AnswerReader, From
from headrace.core.answer_log import Place
from headrace.core.clock import Clock
from headrace.core.fields import StartError, parse_start
from headrace.gateway.access import Identity
from headrace.gateway.bodies import answer_of
from headrace.gateway.calls import Call
from headrace.gateway.lookup import tenant_of
from headrace.gateway.problems import ProblemError, busy, invalid
from headrace.kafka.interface import Cluster, KafkaError
from headrace.process.logs import event

if TYPE_CHECKING:
    from headrace.gateway.gateway import Gateway

MOST_QUEUED = 20_000
"""Answers that wait for one stream."""
CATCHING_UP = 8
NEAR = 5_000
"""A stream that is so near to the end joins the others."""
PING_S = 15.0
RETRY_S = 0.2
IDLE_S = 30.0
"""So long the reader goes on when nobody listens."""
MOST_PARTITIONS = 10_000

_ID = re.compile(r"([0-9]{1,6}):([0-9]{1,18}):([0-9]{0,18})")


class Chunk(NamedTuple):
    """Answers of one read, and where the reader stands behind them."""

    answers: list[LogAnswer]
    places: Mapping[int, Place]


class Listener:
    """One stream."""

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self.chunks: deque[Chunk] = deque()
        self.queued = 0
        self.places: Mapping[int, Place] = {}
        """Where the reader stood when the last chunk without an answer for this stream came."""
        self.ended: str | None = None
        self.woken = asyncio.Event()

    def take(self, chunk: Chunk) -> None:
        """``chunk`` has the answers that this stream may see."""
        if not chunk.answers:
            if not self.chunks:
                self.places = chunk.places
            return
        self.queued += len(chunk.answers)
        if self.queued > MOST_QUEUED:
            self.end("this stream does not keep up")
            return
        self.chunks.append(chunk)
        self.woken.set()

    def end(self, why: str) -> None:
        if self.ended is None:
            self.ended = why
            self.woken.set()


class AnswerStreams:
    """The one reader, and who listens to it."""

    def __init__(self, cluster: Cluster, topic: str, clock: Clock) -> None:
        self._cluster = cluster
        self._topic = topic
        self._clock = clock
        self._listeners: set[Listener] = set()
        self._reader: AnswerReader | None = None
        self._running: asyncio.Task[None] | None = None
        self._starts = asyncio.Lock()
        self.catching_up = asyncio.Semaphore(CATCHING_UP)

    @property
    def count(self) -> int:
        """How many streams there are."""
        return len(self._listeners)

    async def stop(self) -> None:
        """End all streams."""
        self.end_all("this gateway ends")
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])

    def end_all(self, why: str) -> None:
        for one in self._listeners:
            one.end(why)

    async def join(self, listener: Listener) -> Mapping[int, Place]:
        """Hand to ``listener`` all that comes behind the places that are returned. Raises a KafkaError."""
        async with self._starts:
            if self._running is None or self._running.done():
                reader = self._new_reader("latest")
                await reader.start()
                self._reader = reader
                self._running = asyncio.create_task(self._run(reader), name="streams")
            self._listeners.add(listener)
            assert self._reader is not None  # noqa: S101 - made above
            return self._reader.positions

    def leave(self, listener: Listener) -> None:
        self._listeners.discard(listener)

    def reader_from(self, start: From) -> AnswerReader:
        """A reader of its own for a stream that catches up."""
        return self._new_reader(start)

    def _new_reader(self, start: From) -> AnswerReader:
        return AnswerReader(self._cluster.consumer(), self._topic, from_=start, clock=self._clock)

    async def _run(self, reader: AnswerReader) -> None:
        idle_since_s = self._clock.monotonic()
        try:
            while True:
                try:
                    answers = await reader.read(timeout_s=0.5)
                except KafkaError as error:
                    if not error.retriable:
                        raise
                    event("answers.retry", level="debug", error=str(error))
                    await self._clock.sleep(RETRY_S)
                    continue
                if answers:
                    self._hand_over(answers, reader.positions)
                if self._listeners:
                    idle_since_s = self._clock.monotonic()
                elif self._clock.monotonic() - idle_since_s > IDLE_S and not self._starts.locked():
                    return
        except (KafkaError, AnswerLogError) as error:
            event("streams.ended", level="error", error=str(error))
            self.end_all("the answers can't be read")
        finally:
            self.end_all("the answers are read anew")
            await reader.stop()

    def _hand_over(self, answers: list[LogAnswer], places: Mapping[int, Place]) -> None:
        """To each listener what it may see; what one tenant may see is found once."""
        seen: dict[tuple[bool, str | None], Chunk] = {}
        for one in list(self._listeners):
            whose = one.identity.everything, one.identity.tenant
            if (chunk := seen.get(whose)) is None:
                mine = [answer for answer in answers if one.identity.sees(tenant_of(answer.headers))]
                chunk = seen[whose] = Chunk(mine, places)
            one.take(chunk)


def write_id(places: Mapping[int, Place]) -> str:
    """PARTITION:POSITION:HIGHEST of each partition, with commas between."""
    return ",".join(
        f"{number}:{place.position}:{'' if place.highest is None else place.highest}"
        for number, place in sorted(places.items())
    )


def read_id(text: str) -> dict[int, Place] | None:
    """What :func:`write_id` wrote, None for anything else."""
    places: dict[int, Place] = {}
    for part in text.split(",", MOST_PARTITIONS):
        found = _ID.fullmatch(part.strip())
        if found is None or int(found[1]) in places:
            return None
        places[int(found[1])] = Place(int(found[2]), int(found[3]) if found[3] else None)
    return places


async def stream(call: Call) -> Response:
    """Answers of the caller's tenant as they come."""
    gateway = call.gateway
    gateway.check_serving()
    last = call.headers.get("last-event-id")
    given = call.request.query_params.get("from")
    start: From | None = None
    if last:
        start = read_id(last)
        if start is None:
            raise invalid("Last-Event-ID is none that this stream has given.", field="Last-Event-ID")
    elif given is not None and given != "latest":
        try:
            parse_start(given)
        except StartError as error:
            raise invalid(str(error), field="from") from None
        start = given
    listener = Listener(call.identity)
    reader = None
    if start is not None:
        reader = await _reader_at(gateway, start)
    try:
        places = await gateway.streams.join(listener) if reader is None else {}
    except BaseException:
        gateway.streams.leave(listener)
        raise
    headers = {"x-accel-buffering": "no"}
    return _Stream(gateway, listener, reader, _events(gateway, listener, places, reader), headers)


class _Stream(StreamingResponse):
    """Lets go of the listener and its reader at the end, also where the caller has gone before the first event."""

    def __init__(
        self,
        gateway: Gateway,
        listener: Listener,
        reader: AnswerReader | None,
        events: AsyncIterator[bytes],
        headers: dict[str, str],
    ) -> None:
        super().__init__(events, HTTPStatus.OK, headers, "text/event-stream")
        self._gateway = gateway
        self._listener = listener
        self._reader = reader

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._gateway.streams.leave(self._listener)
            if self._reader is not None:
                await self._reader.stop()


async def _reader_at(gateway: Gateway, start: From) -> AnswerReader:
    if gateway.streams.catching_up.locked():
        raise busy(f"{CATCHING_UP} streams catch up already.", 5.0)
    reader = gateway.streams.reader_from(start)
    try:
        async with gateway.streams.catching_up:
            await reader.start()
    except AnswerLogError as error:
        await reader.stop()
        raise ProblemError(HTTPStatus.GONE, "log-cut", str(error), field="Last-Event-ID") from None
    except KafkaError:
        await reader.stop()
        raise
    return reader


async def _events(
    gateway: Gateway, listener: Listener, places: Mapping[int, Place], reader: AnswerReader | None
) -> AsyncIterator[bytes]:
    at = dict(places)
    yield b"retry: 1000\n\n"
    if reader is not None:
        async for some in _catch_up(gateway, listener, reader, at):
            yield some
    listener.places = dict(at)
    while gateway.access.holds(listener.identity):
        while listener.chunks:
            chunk = listener.chunks.popleft()
            listener.queued -= len(chunk.answers)
            yield b"".join(_written(one, at) for one in chunk.answers)
            at.update(chunk.places)
            listener.places = dict(at)
        if listener.ended is not None:
            yield f": {listener.ended}\n\n".encode()
            return
        listener.woken.clear()
        try:
            async with asyncio.timeout(PING_S):
                await listener.woken.wait()
        except TimeoutError:
            at.update(listener.places)
            # Without data it is no event, and moves the last id all the same.
            yield f"id: {write_id(at)}\n: ping\n\n".encode()


async def _catch_up(
    gateway: Gateway, listener: Listener, reader: AnswerReader, at: dict[int, Place]
) -> AsyncIterator[bytes]:
    """Read up to where the one reader is, then let ``listener`` join the others; ``at`` follows."""
    at.update(reader.positions)
    joined: Mapping[int, Place] | None = None
    async with gateway.streams.catching_up:
        while listener.ended is None:
            if joined is None:
                ends = await reader.ends()
                if sum(max(0, end - at[number].position) for number, end in ends.items() if number in at) <= NEAR:
                    joined = await gateway.streams.join(listener)
            if joined is not None and all(
                number in at and at[number].position >= place.position for number, place in joined.items()
            ):
                return
            answers = await reader.read(timeout_s=0.2)
            written = []
            for one in answers:
                behind = joined is not None and one.partition in joined
                if behind and joined is not None and one.position >= joined[one.partition].position:
                    continue  # the one reader hands it over
                if listener.identity.sees(tenant_of(one.headers)):
                    written.append(_written(one, at))
                at[one.partition] = one.place
            for number, place in reader.positions.items():
                limit = None if joined is None else joined.get(number)
                at[number] = place if limit is None or place.position <= limit.position else limit
            if written:
                yield b"".join(written)


def _written(one: LogAnswer, at: dict[int, Place]) -> bytes:
    at[one.partition] = one.place
    content = msgspec.json.encode(answer_of(one.result, (one.partition, one.result.offset)))
    return b"id: %b\nevent: answer\ndata: %b\n\n" % (write_id(at).encode(), content)
