"""The client: publish texts, read answers, or both at once by :meth:`Client.classify`. :func:`connect` makes one."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import warnings
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, Self

import msgspec

from headrace.client.arguments import (
    AnswerLogError,
    AnswersEndedError,
    ArgumentError,
    ClientClosedError,
    MisuseError,
    NoAnswerError,
    check_instance,
    check_requests,
    fitting,
    partition_numbers,
    places_by_partition,
    record_of,
    request_shape,
    seconds,
    waiting_timeout,
    whole_number,
)
from headrace.client.group_reading import GroupReader
from headrace.client.publishing import Awaiter, Published, Publisher, Sent, batches, one_under_way, prepare
from headrace.client.reading import Answer, AnswerReader, From, log_cut, topic_gone
from headrace.client.reviews import ReviewAwaiter, ReviewReader, reviewed
from headrace.core.clock import Clock, SystemClock
from headrace.core.errors import noting, raise_failed
from headrace.core.fields import Addresses, Name, Topic, parse_start
from headrace.core.fields import Place as PathText
from headrace.core.resume import LARGEST_MAX_BATCH, look_back
from headrace.core.text import given_as
from headrace.kafka.interface import (
    Cluster,
    Headers,
    KafkaError,
    NotAuthorizedError,
    Outgoing,
    Producer,
    TopicPartition,
    UnknownTopicError,
    passes,
)
from headrace.kafka.retry import retried
from headrace.kafka.settings import KafkaSettings
from headrace.kafka.tracing import traced
from headrace.process.logs import event
from headrace_schemas.errors import WireError
from headrace_schemas.paths import RequestShape, compile_writer
from headrace_schemas.records import ClassifyRequest, ClassifyResult, Status
from headrace_schemas.topics import REQUESTS, RESULTS, REVIEWS

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

COMMIT_S = 1.0
RETRY_S = 0.5
LOOK_S = 2.0
"""When a call's time is over, how long the client looks whether Kafka is there."""
ASK_WORKERS = "Is a worker answering? Its log and its /readyz say more."
OWN_SHAPE = RequestShape()


def shared_start(from_: From, partitions: object) -> str | dt.datetime:
    """Where a group begins. Raises ArgumentError for places and partitions, which the group keeps itself."""
    if partitions is None and not isinstance(from_, Mapping):
        return from_
    name = "from_" if partitions is None else "partitions"
    raise ArgumentError(f"{name}: the group shares out partitions and keeps their places; from_ is a word or a time.")


class _Seen(msgspec.Struct, frozen=True):
    """What Kafka shows: why no broker answers, or the end of each partition by topic. A topic that is gone has no
    ends.
    """

    away: str | None = None
    ends: dict[str, dict[int, int]] = {}


class Client:
    """Publishes to ``requests`` and reads from ``results`` of ``cluster``. Use it by ``async with``.

    Every method that talks to Kafka raises a KafkaError. Before anything is sent, a request that the wire refuses
    raises a WireError, and a wrong argument an ArgumentError. Outside of the ``async with`` all methods raise
    ClientClosedError; on another event loop or after a fork they raise MisuseError.
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        requests: str = REQUESTS,
        results: str = RESULTS,
        reviews: str = REVIEWS,
        max_batch: int = LARGEST_MAX_BATCH,
        shape: RequestShape = OWN_SHAPE,
        clock: Clock | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        if not all(callable(getattr(cluster, name, None)) for name in ("producer", "consumer")):
            raise ArgumentError(
                f"cluster: a Cluster is needed, not {given_as(cluster)}; `headrace.client.connect` takes an address."
            )
        requests, self._results = fitting("requests", requests, Topic), fitting("results", results, Topic)
        if requests == self._results:
            raise ArgumentError(f"results: {requests} is the topic of the requests; answers have one of their own.")
        self._reviews = fitting("reviews", reviews, Topic)
        self._encode = compile_writer(request_shape(shape))
        self._cluster = cluster
        self._look_back = look_back(whole_number("max_batch", max_batch, least=1, most=LARGEST_MAX_BATCH))
        self._clock = clock or SystemClock()
        self._publisher = Publisher(_traced(cluster, tracer, requests), requests)
        self._awaiter: Awaiter | None = None
        self._used: set[str] = set()
        """Topics that calls of classify have read or written."""
        self._review_awaiter: ReviewAwaiter | None = None
        self._calm = ExitStack()
        self._looking: asyncio.Task[_Seen] | None = None
        self._awaiter_starts = asyncio.Lock()
        self._readers: set[AnswerReader | GroupReader] = set()
        self._stops = asyncio.Lock()
        self._open = False
        self._entered = False
        self._home: tuple[int, asyncio.AbstractEventLoop] | None = None

    async def __aenter__(self) -> Self:
        if self._home is not None:
            if self._entered and not self._open:
                raise ClientClosedError("This client is closed; connect anew.")
            raise MisuseError("This client is entered already; share it within its `async with`, or connect another.")
        self._home = os.getpid(), asyncio.get_running_loop()
        self._calm.enter_context(self._cluster.calmed())
        try:
            # A user who may only read needs no producer; publishing raises the error then.
            with suppress(NotAuthorizedError):
                await self._publisher.start()
        except BaseException:
            self._home = None
            self._calm.close()
            raise
        self._open = self._entered = True
        return self

    def __enter__(self) -> NoReturn:
        raise MisuseError("This client is asynchronous: enter it by `async with`, or use headrace.connect_sync().")

    def __exit__(self, *_: object) -> None:
        """Never called. Without it Python raises before ``__enter__`` can say what to do."""

    async def __aexit__(self, *_: object) -> None:
        self._open = False
        try:
            # After a `break` out of `answers` only the garbage collector closes its reader, late or never.
            stops = (self._stop_reader(reader) for reader in self._readers)
            raise_failed(await asyncio.gather(self._stop_awaiters(), *stops, return_exceptions=True))
        finally:
            try:
                await self._publisher.stop()
            finally:
                self._calm.close()

    def prepare(
        self,
        request: str | bytes | ClassifyRequest,
        *,
        key: str | bytes | None = None,
        id: str | None = None,  # noqa: A002 - the field's name on the wire
        timeout: float | None = None,
        headers: Headers = (),
        explain: bool = False,
    ) -> Outgoing:
        """Make the record to publish, in this client's shape; see :func:`headrace.client.prepare`."""
        return prepare(request, key=key, id=id, timeout=timeout, headers=headers, explain=explain, encode=self._encode)

    async def publish(
        self,
        request: str | bytes | ClassifyRequest,
        *,
        key: str | bytes | None = None,
        id: str | None = None,  # noqa: A002 - the field's name on the wire
        timeout: float | None = None,  # noqa: ASYNC109 - how long the request is worth answering, not this call
        headers: Headers = (),
        explain: bool = False,
        partition: int | None = None,
    ) -> Published:
        """Publish one request (see :func:`prepare`) and wait for the acknowledgement by all in-sync replicas.

        An error that ends this wait, or a cancellation, has a note that says that the request may or may not have been
        published.
        """
        self._check_use()
        if partition is not None:
            partition = whole_number("partition", partition)
        record = self.prepare(request, key=key, id=id, timeout=timeout, headers=headers, explain=explain)
        with one_under_way():
            return await self._publisher.publish(record, partition)

    async def publish_many(
        self, requests: Iterable[str | bytes | ClassifyRequest | Outgoing], *, partition: int | None = None
    ) -> list[Published]:
        """Publish many requests, batched and in the order given. :meth:`prepare` makes requests with key, timeout or
        headers.

        The iterable is read as needed, so it may be a generator over a large file. With ``partition`` all requests go
        there, whatever their keys; that is the cheapest way to publish a few at a time. Every error, a cancellation and
        KeyboardInterrupt too, has notes (``__notes__``) that say which request is to blame, counted from 0, how many
        were published and how to go on.
        """
        sent, partition = self._to_send(requests, partition)
        with noting(sent.known):
            for batch in batches(self._records(requests)):
                with sent.under_way(len(batch)):
                    sent.published += await self._publish_batch(batch, partition)
        return sent.published

    async def request_partitions(self) -> frozenset[int]:
        """The partition numbers of the requests topic, empty when there is none."""
        self._check_use()
        return await self._publisher.partitions()

    async def classify(
        self,
        request: str | bytes | ClassifyRequest,
        *,
        key: str | bytes | None = None,
        id: str | None = None,  # noqa: A002 - the field's name on the wire
        timeout: float = 30.0,  # noqa: ASYNC109 - it goes with the request, so that it is not answered later either
        headers: Headers = (),
        explain: bool = False,
        review_timeout: float | None = None,
    ) -> ClassifyResult:
        """Publish a request and wait for its answer, which may be `expired` or `failed` as well as `ok`.

        ``explain`` asks for the answer's ``explanation``: what each word adds to the label's logit. ``timeout`` is in
        seconds, from 0.001 to 604800 (a week). To give up sooner, cancel the call; the request stays published. With
        ``review_timeout``, in seconds, the call waits that long for the review of an answer without a label: it returns
        a :class:`~headrace.client.reviews.ReviewedResult` with the label, or the answer as it is if no review comes. If
        the topic of reviews or the right to read it is missing, a KafkaError is raised before anything is published.
        While Kafka is away the call waits, and publishes the request again if it may not have been published. Raises
        NoAnswerError, a TimeoutError, after ``timeout`` seconds; LostAnswerError when later requests were answered
        instead; AnswerLogError when a topic was cut, made anew or deleted meanwhile, even if that is found out only
        after ``timeout`` seconds; and AnswersEndedError when the client has stopped reading answers, which is a
        ClientClosedError if this client was closed.
        """
        self._check_use()
        timeout = waiting_timeout(timeout)
        if review_timeout is not None:
            review_timeout = seconds("review_timeout", review_timeout)
        record = self.prepare(request, key=key, id=id, timeout=timeout, headers=headers, explain=explain)
        # Started before the request is published, so that it misses no review.
        reviews = None if review_timeout is None else await self._started_review_awaiter()
        published: list[Published] = []
        try:
            async with asyncio.timeout(timeout):
                result = await (await self._asked(record, published))
        except TimeoutError as error:
            seen = await self._seen()
            if (fault := self._fault_of_logs(seen, published)) is not None:
                cut = AnswerLogError(f"No answer within {timeout:g} s. {fault}")
                if self._awaiter is not None:
                    self._awaiter.end(cut)
                raise cut from error
            why = f"Kafka at {self._cluster.bootstrap} is away: {seen.away}" if seen.away else ASK_WORKERS
            raise NoAnswerError(f"No answer within {timeout:g} s. {why}") from error
        if reviews is None or result.status is not Status.OK or result.label is not None:
            return result
        with suppress(TimeoutError):
            async with asyncio.timeout(review_timeout):
                return reviewed(result, await reviews.wait((published[0].partition, published[0].offset)))
        return result

    async def _asked(self, record: Outgoing, published: list[Published]) -> asyncio.Future[ClassifyResult]:
        """Publish ``record``, however long that takes, and return a future of its answer. Its place is added to
        ``published``.
        """

        async def ask() -> asyncio.Future[ClassifyResult]:
            awaiter = await self._started_awaiter()
            with self._still_there(self._publisher.topic), awaiter.publishing() as before:
                published[:] = [await self._publisher.publish(record)]
                return awaiter.expect(published[0], before)

        return await retried(ask, sleep=self._clock.sleep, wait_s=RETRY_S, mends=passes)

    @contextmanager
    def _still_there(self, topic: str) -> Iterator[None]:
        """Wraps a use of ``topic``. Raises AnswerLogError when the topic was used before and is not there any more."""
        try:
            yield
        except UnknownTopicError as error:
            if topic not in self._used:
                raise
            raise AnswerLogError(topic_gone(topic)) from error
        self._used.add(topic)

    async def _seen(self) -> _Seen:
        """What Kafka shows now. All calls whose time ends together share one look."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        try:
            async with asyncio.timeout(LOOK_S):
                return await asyncio.shield(self._looking)
        except TimeoutError:
            return _Seen(f"no answer within {LOOK_S:g} s")

    async def _look(self) -> _Seen:
        if (away := await self._cluster.why_away()) is not None:
            return _Seen(away)
        ends: dict[str, dict[int, int]] = {}
        consumer = self._cluster.consumer()
        try:
            await consumer.start()
            for topic in (self._publisher.topic, self._results):
                names = [TopicPartition(topic, number) for number in await consumer.partitions_of(topic)]
                found = await consumer.end_offsets(names) if names else {}
                ends[topic] = {name.partition: end for name, end in found.items()}
        except KafkaError as error:
            event("logs.not-looked", level="debug", error=str(error))
        finally:
            await consumer.stop()
        return _Seen(None, ends)

    def _fault_of_logs(self, seen: _Seen, published: Sequence[Published]) -> str | None:
        """Why nobody answers the ``published`` requests, if a log was cut or made anew, in words for people; otherwise
        None.
        """
        for topic, ends in seen.ends.items():
            if not ends:
                return topic_gone(topic)
        for one in published:
            end = seen.ends.get(self._publisher.topic, {}).get(one.partition)
            if end is not None and end <= one.offset:
                return (
                    f"{self._publisher.topic}[{one.partition}] ends at {end}, before the request, which was published "
                    f"as {one.offset}: the topic was cut or made anew. Call again to publish it again."
                )
        for partition, position in (self._awaiter.positions if self._awaiter is not None else {}).items():
            end = seen.ends.get(self._results, {}).get(partition)
            if end is not None and end < position:
                return f"{log_cut(TopicPartition(self._results, partition), position, end)} The next call does that."
        return None

    @asynccontextmanager
    async def reader(
        self, from_: From = "latest", *, partitions: Collection[int] | None = None
    ) -> AsyncIterator[AnswerReader]:
        """Read answers in chunks; see :meth:`answers`."""
        self._check_use()
        # Checked before there is a consumer, which nobody would stop.
        if isinstance(from_, Mapping):
            from_ = places_by_partition("from_", from_)
        else:
            parse_start(from_)
        only = None if partitions is None else partition_numbers("partitions", partitions)
        reader = AnswerReader(
            self._cluster.consumer(),
            self._results,
            from_=from_,
            partitions=only,
            look_back=self._look_back,
            clock=self._clock,
        )
        async with self._started(reader):
            yield reader

    @asynccontextmanager
    async def group_reader(self, group: str, from_: str | dt.datetime = "latest") -> AsyncIterator[GroupReader]:
        """Read answers in chunks as a member of ``group``; its members share the partitions.

        The caller marks and commits answers; :mod:`headrace.client.group_reading` says what is promised.
        """
        self._check_use()
        group = fitting("group", group, Name)
        parse_start(from_)
        reader = GroupReader(
            self._cluster.consumer(group=group),
            self._cluster.consumer(),
            self._results,
            from_=from_,
            look_back=self._look_back,
            clock=self._clock,
        )
        async with self._started(reader):
            yield reader

    async def answers(
        self, from_: From = "latest", *, partitions: Collection[int] | None = None, group: str | None = None
    ) -> AsyncGenerator[Answer, None]:
        """Iterate over accepted answers, for ever: no repeats, and ``hole`` on the answer behind a hole.

        ``from_`` is "latest", "earliest" ("end" and "beginning" mean the same), a time (a datetime, or a text as ISO
        8601; without a zone in UTC) or a place for each results partition: :attr:`Answer.place` of the last processed
        answer, or :attr:`AnswerReader.positions`. Readers that name the same ``group`` share the partitions, and the
        group's places are committed to Kafka about once a second. An answer counts as processed when the caller asks
        for the next one. No answer is skipped; after a kill some come again. A group begins at a word or a time and
        reads all partitions. Raises StartError, a ValueError, for anything else.
        """
        if group is None:
            async with self.reader(from_, partitions=partitions) as reader:
                while True:
                    for answer in await self._read(reader):
                        yield answer
        async with self.group_reader(group, shared_start(from_, partitions)) as member:
            while True:
                for answer in await self._read(member):
                    if member.owns(answer):
                        yield answer
                        member.mark(answer)
                        await member.commit(every_s=COMMIT_S)
                await member.commit(every_s=COMMIT_S)

    @staticmethod
    def _to_send(requests: object, partition: int | None) -> tuple[Sent, int | None]:
        """A :class:`Sent` that counts the requests, and the partition. Raises ArgumentError before anything is sent."""
        check_requests(requests)
        return Sent(), None if partition is None else whole_number("partition", partition)

    async def _publish_batch(self, records: Sequence[Outgoing], partition: int | None) -> list[Published]:
        """Publish records of :meth:`_records` in one go and in the order given."""
        self._check_use()
        return await self._publisher.publish_batch(records, partition)

    def _records(self, requests: Iterable[str | bytes | ClassifyRequest | Outgoing]) -> Iterator[Outgoing]:
        """Make the records of many requests one by one. An error has a note with the number of the request."""
        for number, request in enumerate(requests):
            try:
                yield record_of(request) if isinstance(request, Outgoing) else self.prepare(request)
            except (ArgumentError, WireError) as error:
                error.add_note(f"It is request {number:,} of those given, counted from 0.")
                raise

    def _check_use(self) -> None:
        if not self._open:
            raise ClientClosedError(
                "This client is closed; connect anew."
                if self._entered
                else "This client is not connected yet: use it within `async with`."
            )
        if self._home == (os.getpid(), asyncio.get_running_loop()):
            return
        if self._home is not None and self._home[0] != os.getpid():
            raise MisuseError("This client was connected before a fork, in another process: connect in this one.")
        raise MisuseError(
            "This client belongs to another event loop: connect one in each, or use headrace.client.connect_sync, "
            "whose client serves any thread."
        )

    async def _read(self, reader: AnswerReader | GroupReader) -> list[Answer]:
        self._check_use()
        try:
            return await reader.read()
        except KafkaError:
            # The end of the client stopped its consumer; ClientClosedError says so.
            self._check_use()
            raise

    @asynccontextmanager
    async def _started(self, reader: AnswerReader | GroupReader) -> AsyncIterator[None]:
        """Start a reader for the block, and stop it at the end of the block or of this client."""
        try:
            await reader.start()
            self._check_use()
        except BaseException:
            await reader.stop()
            raise
        self._readers.add(reader)
        try:
            yield
        finally:
            await self._stop_reader(reader)

    async def _stop_reader(self, reader: AnswerReader | GroupReader) -> None:
        """Stop it once, although its user and the client's end may both ask for it, even at the same time."""
        async with self._stops:
            if reader in self._readers:
                try:
                    await reader.stop()
                finally:
                    self._readers.discard(reader)

    async def _stop_awaiters(self) -> None:
        if self._review_awaiter is not None:
            await self._review_awaiter.stop()
        if self._awaiter is not None:
            await self._awaiter.stop(
                ClientClosedError(
                    "The client was closed before the answer came: whether the request is answered is unknown. "
                    "Await what is under way before the end of its `async with`."
                )
            )

    async def _started_awaiter(self) -> Awaiter:
        async with self._awaiter_starts:
            self._check_use()
            if self._awaiter is None or not self._awaiter.alive:
                if self._awaiter is not None:
                    await self._awaiter.stop(AnswersEndedError("The answers are read anew."))
                # No look-back: it finds repeats, and an awaited answer is found by its place.
                reader = AnswerReader(self._cluster.consumer(), self._results, look_back=0, clock=self._clock)
                self._awaiter = Awaiter(reader, self._publisher.topic, self._clock)
                with self._still_there(self._results):
                    await self._awaiter.start()
            return self._awaiter

    async def _started_review_awaiter(self) -> ReviewAwaiter:
        async with self._awaiter_starts:
            self._check_use()
            if self._review_awaiter is None or not self._review_awaiter.alive:
                if self._review_awaiter is not None:
                    await self._review_awaiter.stop()
                reader = ReviewReader(self._cluster.consumer(), self._reviews, results=self._results, clock=self._clock)
                self._review_awaiter = ReviewAwaiter(reader, self._clock)
                await self._review_awaiter.start()
            return self._review_awaiter


def connect(
    bootstrap: str | None = None,
    *,
    config: str | os.PathLike[str] | None = None,
    kafka: KafkaSettings | None = None,
    requests: str | None = None,
    results: str | None = None,
    reviews: str | None = None,
    max_batch: int = LARGEST_MAX_BATCH,
    shape: RequestShape | None = None,
    tracer: Tracer | None = None,
) -> Client:
    """Return a client, which connects at the beginning of its ``async with``.

    Without ``bootstrap`` and ``kafka`` it reads the settings as the commands do: ``./headrace.toml`` if there is one,
    overridden by the environment (``HEADRACE_KAFKA__BOOTSTRAP`` and so on). ``config`` names another file. The client
    uses ``[kafka]``, the names of the topics, and ``[requests]``, the shape in which workers read requests. With
    ``bootstrap`` (``host:port``, several with commas between) or ``kafka`` (the whole section, as TLS and SASL need it)
    it reads neither file nor environment, unless ``config`` is given too.

    Arguments override settings: ``bootstrap`` or ``kafka``, the topics (``requests``, ``results``, ``reviews``),
    ``shape``. ``max_batch`` is the largest worker.max_batch of all workers, by default the largest that is possible: a
    reader that knows only a position looks back over four times as many answers of each partition.

    ``tracer`` is one of OpenTelemetry's (``opentelemetry.trace.get_tracer("my.program")``). Then publishing has a span,
    and requests carry its trace context where it is sampled, which their answers repeat. A request with a `traceparent`
    of its own keeps that one.

    Raises ArgumentError, and SettingsError for settings that can't be used; entering the client raises a KafkaError.

    >>> async with headrace.connect() as client:
    ...     print((await client.classify("Rates rise again")).label)
    """
    found, topics, read_shape = _found(bootstrap, config, kafka, requests, results, reviews)
    return Client(
        found,
        requests=topics[0],
        results=topics[1],
        reviews=topics[2],
        max_batch=max_batch,
        shape=read_shape if shape is None else shape,
        tracer=tracer,
    )


def _traced(cluster: Cluster, tracer: Tracer | None, requests: str) -> Callable[[], Producer]:
    """What makes producers, which trace what they publish if there is a tracer. Raises ArgumentError for none."""
    if tracer is None:
        return cluster.producer
    if not callable(getattr(tracer, "start_span", None)):
        raise ArgumentError(
            f"tracer: a tracer of OpenTelemetry is needed, not {given_as(tracer)}; "
            '`opentelemetry.trace.get_tracer("my.program")` returns one.'
        )
    from headrace.process.open_telemetry import OpenTelemetryTracer  # noqa: PLC0415 - only who has a tracer

    return traced(cluster.producer, OpenTelemetryTracer(tracer), (requests,), injects=True)


def _found(
    bootstrap: str | None,
    config: str | os.PathLike[str] | None,
    kafka: KafkaSettings | None,
    requests: str | None,
    results: str | None,
    reviews: str | None,
) -> tuple[Cluster, tuple[str, str, str], RequestShape]:
    """The cluster, the three topics' names and the shape of requests."""
    # Imported only when somebody connects.
    from headrace.config import file_of, load_settings  # noqa: PLC0415
    from headrace.kafka.aio import AioKafkaCluster  # noqa: PLC0415

    if kafka is not None:
        check_instance("kafka", kafka, KafkaSettings, "KafkaSettings")
        if bootstrap is not None:
            raise ArgumentError(
                "bootstrap: kafka names the cluster already (KafkaSettings.bootstrap); give one of both."
            )
    given = {
        "bootstrap": ("kafka.bootstrap", None if bootstrap is None else fitting("bootstrap", bootstrap, Addresses)),
        "requests": ("topics.requests", None if requests is None else fitting("requests", requests, Topic)),
        "results": ("topics.results", None if results is None else fitting("results", results, Topic)),
        "reviews": ("topics.reviews", None if reviews is None else fitting("reviews", reviews, Topic)),
    }
    if config is None and (bootstrap is not None or kafka is not None):
        loaded = load_settings(None, {}, (), given)
    else:
        loaded = load_settings(file_of(_path(config)), os.environ, (), given)
    for variable, nearest in loaded.ignored:
        hint = "" if nearest is None else f"; did you mean {nearest}?"
        warnings.warn(f"The environment variable {variable} is no setting{hint}", stacklevel=3)
    settings = loaded.settings
    names = settings.topics.names()
    topics = names.requests, names.results, names.reviews
    return AioKafkaCluster(kafka or settings.kafka), topics, settings.requests


def _path(config: object) -> Path | None:
    if config is None:
        return None
    try:
        named = os.fspath(config)  # type: ignore[call-overload]
    except TypeError:
        raise ArgumentError(f"config: the path of a headrace.toml is needed, not {given_as(config)}.") from None
    return Path(fitting("config", named, PathText))
