"""The client: publish texts, read answers, or both at once by :meth:`Client.classify`."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Self

from headrace.client.arguments import check_instance, check_name, check_number, check_numbers, check_requests
from headrace.client.awaiting import Awaiter
from headrace.client.errors import AnswersEndedError, ArgumentError, ClientClosedError, NoAnswerError
from headrace.client.group_reading import GroupReader
from headrace.client.publishing import Published, Publisher, prepare
from headrace.client.reading import Answer, AnswerReader, From
from headrace.core.clock import Clock, SystemClock
from headrace.core.errors import raise_failed
from headrace.core.resume import LARGEST_MAX_BATCH, look_back
from headrace.kafka.errors import KafkaError, NotAuthorizedError
from headrace.kafka.interface import Cluster, Headers, Outgoing
from headrace.kafka.settings import KafkaSettings
from headrace_schemas.paths import RequestShape
from headrace_schemas.records import ClassifyRequest, ClassifyResult
from headrace_schemas.topics import REQUESTS, RESULTS
from headrace_schemas.writing import compile_writer

COMMIT_S = 1.0
OWN_SHAPE = RequestShape()


@asynccontextmanager
async def connect(
    bootstrap: str = "127.0.0.1:9092",
    *,
    kafka: KafkaSettings | None = None,
    requests: str = REQUESTS,
    results: str = RESULTS,
    max_batch: int = LARGEST_MAX_BATCH,
    shape: RequestShape = OWN_SHAPE,
) -> AsyncIterator[Client]:
    """Connect to Kafka at ``bootstrap``, or by all of ``kafka`` (TLS, SASL). Raises a KafkaError.

    ``max_batch`` is the largest worker.max_batch among the workers, by default the largest that there can be: a reader
    that knows a position alone looks back over four times so many answers of each partition. ``shape`` is the section
    ``[requests]`` of the workers' settings: requests are written so that they can read them.

    >>> async with headrace.client.connect("127.0.0.1:9092") as client:
    ...     print((await client.classify("Rates rise again")).label)
    """
    from headrace.kafka.aio import AioKafkaCluster  # noqa: PLC0415 - aiokafka loads when somebody connects

    check_name("bootstrap", bootstrap)
    if kafka is not None:
        check_instance("kafka", kafka, KafkaSettings, "KafkaSettings")
    cluster = AioKafkaCluster(kafka or KafkaSettings(bootstrap=bootstrap))
    async with Client(cluster, requests=requests, results=results, max_batch=max_batch, shape=shape) as client:
        yield client


class Client:
    """Publishes to ``requests`` and reads from ``results`` of ``cluster``. Use it by ``async with``.

    Whatever reaches for Kafka raises a KafkaError; what the wire refuses raises a WireError, and what is no
    such argument an ArgumentError, before anything is sent. Outside of the ``async with`` all raise ClientClosedError.
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        requests: str = REQUESTS,
        results: str = RESULTS,
        max_batch: int = LARGEST_MAX_BATCH,
        shape: RequestShape = OWN_SHAPE,
        clock: Clock | None = None,
    ) -> None:
        check_name("requests", requests)
        check_name("results", results)
        check_number("max_batch", max_batch, least=1)
        check_instance("shape", shape, RequestShape, "a RequestShape")
        self._cluster = cluster
        self._results = results
        self._look_back = look_back(max_batch)
        self._clock = clock or SystemClock()
        self._publisher = Publisher(cluster.producer, requests)
        self._awaiter: Awaiter | None = None
        self._awaiter_starts = asyncio.Lock()
        self._readers: set[AnswerReader | GroupReader] = set()
        self._stops = asyncio.Lock()
        self._open = False
        self._entered = False
        self._encode = compile_writer(shape)

    async def __aenter__(self) -> Self:
        # Who may only read needs no producer, and who publishes nevertheless is told so then.
        with suppress(NotAuthorizedError):
            await self._publisher.start()
        self._open = self._entered = True
        return self

    async def __aexit__(self, *_: object) -> None:
        self._open = False
        try:
            # A `break` out of `answers` leaves its reader to the garbage collector, which may come late or never.
            stops = (self._stop_reader(reader) for reader in self._readers)
            raise_failed(await asyncio.gather(self._stop_awaiter(), *stops, return_exceptions=True))
        finally:
            await self._publisher.stop()

    def prepare(
        self,
        request: str | bytes | ClassifyRequest,
        *,
        key: str | bytes | None = None,
        id: str | None = None,  # noqa: A002 - the field's name on the wire
        timeout: float | None = None,
        headers: Headers = (),
    ) -> Outgoing:
        """Make the record to publish, in this client's shape; see :func:`headrace.client.prepare`."""
        return prepare(request, key=key, id=id, timeout=timeout, headers=headers, encode=self._encode)

    async def publish(
        self,
        request: str | bytes | ClassifyRequest,
        *,
        key: str | bytes | None = None,
        id: str | None = None,  # noqa: A002 - the field's name on the wire
        timeout: float | None = None,  # noqa: ASYNC109 - how long the request is worth answering, not this call
        headers: Headers = (),
        partition: int | None = None,
    ) -> Published:
        """Publish one request (see :func:`prepare`) and wait for the acknowledgement by all in-sync replicas."""
        self._check_open()
        if partition is not None:
            check_number("partition", partition)
        record = self.prepare(request, key=key, id=id, timeout=timeout, headers=headers)
        return await self._publisher.publish(record, partition)

    async def publish_many(
        self, requests: Iterable[str | bytes | ClassifyRequest | Outgoing], *, partition: int | None = None
    ) -> list[Published]:
        """Publish many, batched; with key, timeout or headers make them by :meth:`prepare`. Order as given.

        An iterable is taken as it is needed, so it may be a generator over a large file. With ``partition`` all go
        there, whatever their keys; a few at a time are cheapest so.
        """
        self._check_open()
        check_requests(requests)
        if partition is not None:
            check_number("partition", partition)
        return await self._publisher.publish_many(
            (request if isinstance(request, Outgoing) else self.prepare(request) for request in requests), partition
        )

    async def request_partitions(self) -> frozenset[int]:
        """The partition numbers of the requests topic, empty when there is none."""
        self._check_open()
        return await self._publisher.partitions()

    async def classify(
        self,
        request: str | bytes | ClassifyRequest,
        *,
        key: str | bytes | None = None,
        id: str | None = None,  # noqa: A002 - the field's name on the wire
        timeout: float = 30.0,  # noqa: ASYNC109 - it goes with the request, so that it is not answered later either
        headers: Headers = (),
    ) -> ClassifyResult:
        """Publish a request and wait for its answer, which may be `expired` or `failed` as well as `ok`.

        Raises NoAnswerError, a TimeoutError, after ``timeout`` seconds, LostAnswerError when later requests were
        answered instead, AnswerLogError when the answer is to another text, and AnswersEndedError when answers are not
        read any more, which is a ClientClosedError where this client was closed.
        """
        self._check_open()
        record = self.prepare(request, key=key, id=id, timeout=timeout, headers=headers)
        try:
            async with asyncio.timeout(timeout):
                awaiter = await self._started_awaiter()
                with awaiter.publishing():
                    answer = awaiter.expect(await self._publisher.publish(record))
                return await answer
        except TimeoutError as error:
            raise NoAnswerError(
                f"No answer within {timeout:g} s. Is a worker answering? Its log and its /readyz say more."
            ) from error

    @asynccontextmanager
    async def reader(
        self, from_: From = "latest", *, partitions: Collection[int] | None = None
    ) -> AsyncIterator[AnswerReader]:
        """Read answers by chunks; see :meth:`answers`."""
        self._check_open()
        if partitions is not None:
            check_numbers("partitions", partitions)
        if isinstance(from_, Mapping):
            check_numbers("from_", from_)
        reader = AnswerReader(
            self._cluster.consumer(),
            self._results,
            from_=from_,
            partitions=partitions,
            look_back=self._look_back,
            clock=self._clock,
        )
        async with self._started(reader):
            yield reader

    @asynccontextmanager
    async def group_reader(self, group: str, from_: str | dt.datetime = "latest") -> AsyncIterator[GroupReader]:
        """Read answers by chunks as one of the members of ``group``, who share the partitions.

        Marking and committing are the caller's; see :mod:`headrace.client.group_reading` for what is promised.
        """
        self._check_open()
        check_name("group", group)
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

        ``from_`` is "latest", "earliest" ("end" and "beginning" say the same), a time (a datetime, or a text as ISO
        8601; without a zone in UTC) or a place for each results partition: :attr:`Answer.place` of the last answer that
        is done with, or what :attr:`AnswerReader.positions` gave. Who names the same ``group`` shares the
        partitions, and the group's place is kept in Kafka about once a second: an answer counts as processed when the
        next one is asked for, none is skipped, and after a kill some come again. A group begins at a word or a
        time and reads all partitions. Raises StartError, a ValueError, for anything else.
        """
        if group is None:
            async with self.reader(from_, partitions=partitions) as reader:
                while True:
                    for answer in await self._read(reader):
                        yield answer
        if partitions is not None or isinstance(from_, Mapping):
            name = "from_" if partitions is None else "partitions"
            raise ArgumentError(
                f"{name}: the group shares out partitions and keeps their places; from_ is a word or a time."
            )
        async with self.group_reader(group, from_) as member:
            while True:
                for answer in await self._read(member):
                    if member.owns(answer):
                        yield answer
                        member.mark(answer)
                        await member.commit(every_s=COMMIT_S)
                await member.commit(every_s=COMMIT_S)

    def _check_open(self) -> None:
        if not self._open:
            raise ClientClosedError(
                "This client is closed; connect anew."
                if self._entered
                else "This client is not connected yet: use it within `async with`."
            )

    async def _read(self, reader: AnswerReader | GroupReader) -> list[Answer]:
        self._check_open()
        try:
            return await reader.read()
        except KafkaError:
            # Its consumer was stopped under it by the end of the client, which says more.
            self._check_open()
            raise

    @asynccontextmanager
    async def _started(self, reader: AnswerReader | GroupReader) -> AsyncIterator[None]:
        """Around the use of a reader, which ends no later than this client."""
        try:
            await reader.start()
            self._check_open()
        except BaseException:
            await reader.stop()
            raise
        self._readers.add(reader)
        try:
            yield
        finally:
            await self._stop_reader(reader)

    async def _stop_reader(self, reader: AnswerReader | GroupReader) -> None:
        """Stop it once: its user and the client's end may both come, also at the same time."""
        async with self._stops:
            if reader in self._readers:
                try:
                    await reader.stop()
                finally:
                    self._readers.discard(reader)

    async def _stop_awaiter(self) -> None:
        if self._awaiter is not None:
            await self._awaiter.stop(
                ClientClosedError(
                    "The client was closed before the answer came: whether the request is answered is unknown. "
                    "Await what is under way before the end of its `async with`."
                )
            )

    async def _started_awaiter(self) -> Awaiter:
        async with self._awaiter_starts:
            self._check_open()
            if self._awaiter is None or not self._awaiter.alive:
                if self._awaiter is not None:
                    await self._awaiter.stop(AnswersEndedError("The answers are read anew."))
                # Looking back is for repeats, and who waits for one place has no use of it.
                reader = AnswerReader(self._cluster.consumer(), self._results, look_back=0, clock=self._clock)
                self._awaiter = Awaiter(reader, self._clock)
                await self._awaiter.start()
            return self._awaiter
