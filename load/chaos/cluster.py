"""Apache Kafka of one node or three, each with a second listener behind a TCP proxy: the way that workers take.

The proxy cuts, delays and swallows. It forwards whole frames of Kafka's protocol, so a hook can act exactly before a
produce request reaches the broker, or between its acknowledgement and the worker. A frame is a length (int32) and so
many bytes. A request begins with its API key (int16), version (int16), correlation id (int32) and client id (a string
with an int16 length); a reply begins with the correlation id of its request. https://kafka.apache.org/protocol
"""

from __future__ import annotations

import asyncio
import enum
import json
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.errors import KafkaError as TheirKafkaError
from aiokafka.protocol.admin import AlterPartitionReassignmentsRequest
from msgspec import Struct

from headrace.kafka.aio.cluster import AioAdmin
from headrace.kafka.brokers import ApacheBrokers, apache_broker
from headrace.kafka.interface import KafkaError
from headrace.kafka.settings import KafkaSettings
from headrace.process.ports import free_ports
from headrace_load.processes import until

PRODUCE, FETCH, OFFSET_COMMIT, OFFSET_FETCH = 0, 1, 8, 9
JOIN_GROUP, HEARTBEAT, LEAVE_GROUP, SYNC_GROUP = 11, 12, 13, 14
OF_GROUPS = frozenset({OFFSET_COMMIT, OFFSET_FETCH, JOIN_GROUP, HEARTBEAT, LEAVE_GROUP, SYNC_GROUP})
"""What only a group's coordinator answers."""

_HEADER = struct.Struct(">hhih")
_LENGTH = struct.Struct(">i")
_CORRELATION = struct.Struct(">i")


class Request(Struct, frozen=True):
    """The header of a request. ``api`` is its API key."""

    api: int
    correlation: int
    client: str


async def read_frame(stream: asyncio.StreamReader) -> bytes:
    """The next frame, its length included. Raises IncompleteReadError where the stream ends."""
    length = await stream.readexactly(_LENGTH.size)
    return length + await stream.readexactly(_LENGTH.unpack(length)[0])


def request_of(frame: bytes) -> Request:
    """The header of a request's frame."""
    api, _, correlation, length = _HEADER.unpack_from(frame, _LENGTH.size)
    begin = _LENGTH.size + _HEADER.size
    return Request(api, correlation, frame[begin : begin + max(0, length)].decode(errors="replace"))


def correlation_of(frame: bytes) -> int:
    """Which request a reply's frame answers."""
    number: int = _CORRELATION.unpack_from(frame, _LENGTH.size)[0]
    return number


class Way(enum.Enum):
    """Which way a frame goes."""

    TO_BROKER = "to broker"
    FROM_BROKER = "from broker"


class Passing(Struct, frozen=True):
    """A frame on its way: a request, or the reply to ``request``. ``size`` is in bytes."""

    way: Way
    request: Request
    size: int


Hook = Callable[[Passing], Awaitable[bool]]
"""Sees a frame before it is forwarded; false keeps it, and the connection stays open."""


class Proxy:
    """Listens on ``port`` of 127.0.0.1 and forwards to ``target``. Faults are attributes, to be set at any time."""

    def __init__(self, target: int) -> None:
        self.port = 0
        self.delay_s = 0.0
        """Of each frame, both ways."""
        self.swallows = False
        """Frames vanish while connections stay open, as behind a firewall that forgot them."""
        self.refuses = False
        """New connections are closed at once."""
        self.hook: Hook | None = None
        self._target = target
        self._writers: set[asyncio.StreamWriter] = set()

    def cut(self) -> None:
        """Reset every connection there is now."""
        for writer in self._writers:
            writer.transport.abort()

    async def serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        """One connection, from its beginning to its end."""
        if self.refuses:
            to_client.close()
            return
        try:
            broker, to_broker = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:  # the broker is away, and a client hears that by its connection's end
            to_client.close()
            return
        self._writers |= {to_client, to_broker}
        asked: dict[int, Request] = {}
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._requests(client, to_broker, asked))
                both.create_task(self._replies(broker, to_client, asked))
        except* (OSError, asyncio.IncompleteReadError):
            pass  # one side is gone, so the other has to go too
        finally:
            for writer in (to_client, to_broker):
                self._writers.discard(writer)
                writer.transport.abort()

    async def _requests(
        self, client: asyncio.StreamReader, to_broker: asyncio.StreamWriter, asked: dict[int, Request]
    ) -> None:
        while True:
            frame = await read_frame(client)
            request = request_of(frame)
            asked[request.correlation] = request
            await self._pass(frame, Passing(Way.TO_BROKER, request, len(frame)), to_broker)

    async def _replies(
        self, broker: asyncio.StreamReader, to_client: asyncio.StreamWriter, asked: dict[int, Request]
    ) -> None:
        while True:
            frame = await read_frame(broker)
            request = asked.pop(correlation_of(frame))
            await self._pass(frame, Passing(Way.FROM_BROKER, request, len(frame)), to_client)

    async def _pass(self, frame: bytes, passing: Passing, to: asyncio.StreamWriter) -> None:
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        if self.swallows or (self.hook is not None and not await self.hook(passing)):
            return
        to.write(frame)
        await to.drain()


@asynccontextmanager
async def proxied(target: int) -> AsyncIterator[Proxy]:
    """Keep a proxy to a port of 127.0.0.1 while the block runs."""
    proxy = Proxy(target)
    served: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(proxy.serve(reader, writer))
        served.add(task)
        task.add_done_callback(served.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0, limit=1 << 22)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        for task in tuple(served):
            task.cancel()
        with suppress(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.gather(*served, return_exceptions=True)


SETTINGS = {
    # A node that is away is out of the replicas in sync, and no broker, after seconds: a run need not wait.
    "replica.lag.time.max.ms": "3000",
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    "group.min.session.timeout.ms": "1000",
    "log.retention.check.interval.ms": "1000",
    "log.segment.delete.delay.ms": "1000",
    "log.initial.task.delay.ms": "1000",
    # A transaction that nobody ends is aborted when its time is over, not ten seconds later.
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
}
WHOLE_S = 60.0
ADMIN_MS = 30_000
ASKED_MS = 3_000
"""A node that is paused takes a connection and never answers."""


class Cluster:
    """``bootstrap`` is the direct way; ``behind`` leads through ``proxies``, of which there is one a node."""

    def __init__(self, brokers: ApacheBrokers, proxies: list[Proxy], folder: Path) -> None:
        self.brokers = brokers
        self.proxies = proxies
        self.folder = folder
        """Where the nodes keep their logs, each in node-NUMBER."""
        self.bootstrap = brokers.bootstrap
        self.behind = ",".join(f"127.0.0.1:{proxy.port}" for proxy in proxies)

    @property
    def nodes(self) -> int:
        return len(self.proxies)

    @asynccontextmanager
    async def admin(self) -> AsyncIterator[AIOKafkaAdminClient]:
        """An admin client of aiokafka on the direct way."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap, request_timeout_ms=ASKED_MS)
        await admin.start()
        try:
            yield admin
        finally:
            await admin.close()

    async def leaders(self, topic: str) -> dict[int, int]:
        """The node that leads each partition of ``topic``; -1 where none does."""
        return {partition["partition"]: partition["leader"] for partition in await self._described(topic)}

    async def _described(self, topic: str) -> list[dict[str, Any]]:
        """Partitions of a topic. The node that is asked may be one that is paused or gone: then another is."""

        async def look() -> list[dict[str, Any]]:
            try:
                async with self.admin() as admin:
                    (found,) = await admin.describe_topics([topic])
            except TheirKafkaError:
                return []
            partitions: list[dict[str, Any]] = found["partitions"]
            return partitions

        return await until(look, f"the description of {topic}", WHOLE_S)

    @asynccontextmanager
    async def topics(self) -> AsyncIterator[AioAdmin]:
        """The admin client of headrace itself, which waits until what it did is seen, on the direct way."""
        admin = AioAdmin(KafkaSettings(bootstrap=self.bootstrap))
        await admin.start()
        try:
            yield admin
        finally:
            await admin.stop()

    async def alter(self, topic: str, config: Mapping[str, str]) -> None:
        """Set settings of a topic; its others stay."""
        async with self.topics() as topics:
            await topics.alter_config(topic, config)

    async def delete_records(self, topic: str, before: Mapping[int, int]) -> dict[int, int]:
        """Delete what stands before an offset of each partition, -1 for all, as retention does; its new beginnings."""
        wanted = {TopicPartition(topic, number): RecordsToDelete(offset) for number, offset in before.items()}
        async with self.admin() as admin:
            found = await admin.delete_records(wanted)
        return {name.partition: offset for name, offset in found.items()}

    async def reassign(self, topic: str, replicas: Mapping[int, Sequence[int]]) -> None:
        """Put each partition on other nodes, and wait until it is there and in sync. Raises TimeoutError."""
        no_tags: dict[int, bytes] = {}
        wanted = [(partition, list(nodes), no_tags) for partition, nodes in replicas.items()]
        request = AlterPartitionReassignmentsRequest(ADMIN_MS, [(topic, wanted, no_tags)], no_tags)
        async with self.admin() as admin:
            reply = await admin._client.send(await self.controller(), request)  # noqa: SLF001 - it offers no other way
        for _, partitions, _ in reply.responses:
            for partition, code, message, _ in partitions:
                if code:
                    raise AssertionError(f"{topic}[{partition}] was not put elsewhere: {message or code}")
        await until(lambda: self._there(topic, replicas), f"the move of {topic} to other nodes", WHOLE_S)

    async def _there(self, topic: str, replicas: Mapping[int, Sequence[int]]) -> bool:
        return all(
            sorted(one["isr"]) == sorted(one["replicas"]) == sorted(replicas[one["partition"]])
            for one in await self._described(topic)
        )

    async def controller(self) -> int:
        """The node that is the active controller of the quorum, by what nodes tell of the newest epoch."""
        found = await asyncio.to_thread(self._quorum_state)
        return max(found)[1]

    def _quorum_state(self) -> list[tuple[int, int]]:
        """(epoch, leader) as each node has written it down."""
        states = [
            json.loads(file.read_text())
            for file in self.folder.glob("node-*/__cluster_metadata-0/quorum-state")
            if file.is_file()
        ]
        return [(int(state["leaderEpoch"]), int(state["leaderId"])) for state in states]

    def cut(self) -> None:
        """Reset all connections that lead through the proxies."""
        for proxy in self.proxies:
            proxy.cut()

    @contextmanager
    def hindered(self, **how: Any) -> Iterator[None]:
        """Every proxy has the attributes ``how`` while the block runs: delay_s, swallows, refuses or hook."""
        before = [{name: getattr(proxy, name) for name in how} for proxy in self.proxies]
        try:
            self._set([how] * self.nodes)
            yield
        finally:
            self._set(before)

    def _set(self, attributes: Sequence[Mapping[str, Any]]) -> None:
        for proxy, of_proxy in zip(self.proxies, attributes, strict=True):
            for name, value in of_proxy.items():
                setattr(proxy, name, value)

    async def whole(self) -> None:
        """Every node runs: paused ones go on, ended ones are started."""
        for node, process in enumerate(self.brokers.processes):
            self.brokers.resume(node)
            if not process.running:
                await self.brokers.start(node)
        await until(self._counted, f"the return of all {self.nodes} nodes", WHOLE_S)

    async def _counted(self) -> bool:
        """Whether the cluster counts all nodes as there; one that has just come back is not at once."""
        try:
            async with self.topics() as topics:
                return await topics.broker_count() >= self.nodes
        except KafkaError:
            return False


@asynccontextmanager
async def cluster(nodes: int, folder: Path) -> AsyncIterator[Cluster]:
    """Run a cluster while the block runs, its logs in ``folder``, which is there. Raises BrokerStartError."""
    async with AsyncExitStack() as stack:
        second = free_ports(nodes)
        proxies = [await stack.enter_async_context(proxied(port)) for port in second]

        def of_node(node: int, settings: Mapping[str, str]) -> Mapping[str, str]:
            return {
                "listeners": f"{settings['listeners']},WORKERS://127.0.0.1:{second[node]}",
                "advertised.listeners": f"{settings['advertised.listeners']},WORKERS://127.0.0.1:{proxies[node].port}",
                "listener.security.protocol.map": f"{settings['listener.security.protocol.map']},WORKERS:PLAINTEXT",
            }

        brokers = await stack.enter_async_context(
            apache_broker(nodes, config=SETTINGS, of_node=of_node, log_dir=folder)
        )
        yield Cluster(brokers, proxies, folder)
