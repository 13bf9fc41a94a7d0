"""The consumer over aiokafka, and its membership of a group.

aiokafka revokes nothing while it can't reach the group's coordinator. It counts a heartbeat that is answered "rebalance
in progress" as a good one, and remembers when an answer came instead of when its request was sent. Two processes with
one static membership id throw each other out for ever. So :class:`Membership` watches all requests to the coordinator,
in the one method by which aiokafka sends them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener
from aiokafka import TopicPartition as TheirPartition
from aiokafka import errors as theirs
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.commit import OffsetCommitRequest
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.group import HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, SyncGroupRequest

from headrace.core.lease import lease_of
from headrace.core.text import quantity
from headrace.kafka.aio.connection import (
    connect_limit_s,
    connecting,
    make_lasting,
    partitions_of,
    topics_metadata,
    translating,
)
from headrace.kafka.aio.records import TolerantReader, fetch_one, make_lean
from headrace.kafka.interface import (
    Committed,
    KafkaError,
    OffsetOutOfRangeError,
    RebalancedError,
    RebalanceListener,
    Record,
    TopicPartition,
    UnknownTopicError,
)
from headrace.kafka.settings import KafkaSettings, client_options
from headrace.kafka.static_membership import Takeovers, static_id_given_up

log = logging.getLogger(__name__)

OK = theirs.NoError.errno
UNKNOWN_MEMBER = theirs.UnknownMemberIdError.errno
GONE = frozenset({UNKNOWN_MEMBER, theirs.IllegalGenerationError.errno})
"""The group goes on without this member, or without this generation."""
FENCED = 82
"""FENCED_INSTANCE_ID, another process joined under the static id: aiokafka has no error of this number."""


def now_s() -> float:
    """Seconds of a clock that goes on while the machine sleeps. On Linux Python's monotonic clock stands still then."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class Membership:
    """Watches the group of ``consumer``, which is started and not subscribed yet."""

    def __init__(self, consumer: AIOKafkaConsumer, settings: KafkaSettings) -> None:
        self._coordinator: Any = consumer._coordinator  # noqa: SLF001 - aiokafka offers no other way
        self._send = self._coordinator._send_req  # noqa: SLF001
        self._coordinator._send_req = self._watched  # noqa: SLF001
        self._lease = lease_of(
            session_s=settings.session_timeout_ms / 1000, rebalance_s=settings.rebalance_timeout_ms / 1000
        )
        self._takeovers = Takeovers()

    def lease_left_s(self) -> float:
        return self._lease.left_s(now_s())

    def rejoin(self) -> None:
        self._coordinator.request_rejoin()

    async def leave(self, limit_s: float) -> None:
        """Leave the group for a static member. aiokafka never does that; for other members it does."""
        member, group = self._static_id, self._coordinator.group_id
        if member is None or self._coordinator.generation <= 0:
            return
        try:
            async with asyncio.timeout(limit_s):
                await self._send(LeaveGroupRequest(group, self._coordinator.member_id))
        except Exception as error:  # noqa: BLE001 - whatever stands in the way, the end must come
            log.info("Member %s could not leave group %s (%r); its session will end", member, group, error)

    @property
    def _static_id(self) -> str | None:
        static_id: str | None = self._coordinator._group_instance_id  # noqa: SLF001
        return static_id

    async def _watched(self, request: Any) -> Any:
        """Send a request and learn from its answer."""
        of = self._coordinator.member_id, self._coordinator.generation
        sent_s = now_s()
        response = await self._send(request)
        match request:
            case HeartbeatRequest():
                self._heard(response.error_code, of, sent_s)
            case OffsetCommitRequest():
                for code in {code for _, partitions in response.topics for _, code in partitions} & GONE:
                    self._heard(code, of, sent_s)
            case SyncGroupRequest() if response.error_code == OK:
                self._lease = self._lease.begun(of, sent_s)
            case SyncGroupRequest() | JoinGroupRequest() if response.error_code == FENCED:
                # aiokafka does not know this error and would end the consumer. It answers this known error by joining
                # again.
                self._taken_over()
                self._coordinator.reset_generation()
                raise theirs.UnknownMemberIdError(self._coordinator.group_id)
        return response

    def _heard(self, code: int, of: tuple[str, int], sent_s: float) -> None:
        """Take what the group answered to a member of this generation."""
        if code == OK:
            self._lease = self._lease.renewed(of, sent_s)
        elif code in GONE:
            # The lease has not ended, so the session has not either: another process joined under this static id.
            # aiokafka would join under it again and throw the other process out.
            if code == UNKNOWN_MEMBER and self.lease_left_s() > 0:
                self._taken_over()
            self._lease = self._lease.ended()

    def _taken_over(self) -> None:
        if self._static_id is None:
            return
        self._takeovers = self._takeovers.another(now_s())
        if self._takeovers.alternate:
            static_id_given_up(self._coordinator.group_id, self._static_id)
            self._coordinator._group_instance_id = None  # noqa: SLF001


WAIT_MS = 10  # with no bytes asked for Kafka does not wait, but the embedded broker answers nothing in no time
LOOK_MS = 500  # enough for what is there to be read; what is empty takes as long
FEW_BYTES = 1  # the records themselves are of no interest here


async def fetched_ends(
    client: AIOKafkaClient,
    at_least: Mapping[TopicPartition, int],
    leaders: Mapping[TopicPartition, int],
    *,
    read_committed: bool,
) -> dict[TopicPartition, int]:
    """Return where each partition ends for a fetch. An end is never lower than the offset given for the partition.

    The end is the high watermark, or with ``read_committed`` the last stable offset. A partition without a leader, by
    ``leaders`` one below 0, keeps the offset given. Raises aiokafka's errors.
    """
    ends = dict(at_least)
    of_leader: defaultdict[int, defaultdict[str, list[tuple[int, int, int]]]] = defaultdict(lambda: defaultdict(list))
    for partition, offset in at_least.items():
        if (leader := leaders[partition]) >= 0:
            of_leader[leader][partition.topic].append((partition.partition, offset, FEW_BYTES))
    for leader, topics in of_leader.items():
        request = FetchRequest(WAIT_MS, 0, FEW_BYTES, int(read_committed), list(topics.items()))
        for name, partitions in (await client.send(leader, request)).topics:
            for number, error_code, high_watermark, last_stable_offset, *_ in partitions:
                if error_code == 0:
                    partition = TopicPartition(name, number)
                    end = last_stable_offset if read_committed else high_watermark
                    ends[partition] = max(ends[partition], end)
    return ends


async def holds_nothing(
    client: AIOKafkaClient, partition: TopicPartition, offset: int, end: int, *, read_committed: bool, max_bytes: int
) -> bool:
    """Whether the leader answers a fetch at ``offset`` with no bytes although its log reaches ``end``.

    A batch without records counts as bytes, because a consumer's position goes past it. Raises aiokafka's errors.
    """
    found = await fetch_one(
        client, partition, offset, wait_ms=LOOK_MS, max_bytes=max_bytes, read_committed=read_committed
    )
    return found is not None and found.end >= end and not found.raw


# How much longer than its time-out a fetch may take: aiokafka waits without bound for the end of a rebalance.
REBALANCE_CHECK_S = 0.05

CANCEL_AGAIN_S = 0.05


LOOKING_WAIT_MS = 50
"""Who reads without a group also asks for offsets, and on one connection those wait behind a fetch that waits."""


class AioConsumer:
    """Fulfils :class:`headrace.kafka.interface.Consumer`."""

    def __init__(
        self,
        settings: KafkaSettings,
        *,
        group: str | None,
        member: str | None,
        read_committed: bool,
        in_columns: bool = False,
    ) -> None:
        self._settings = settings
        self._in_columns = in_columns
        self._group = group
        self._membership: Membership | None = None
        self._read_committed = read_committed
        self._request_timeout_s = settings.request_timeout_ms / 1000
        self._sought: set[TopicPartition] = set()
        self._paused: set[TopicPartition] = set()
        # By partition, the offset at which aiokafka could not go on.
        self._unreadable: dict[TheirPartition, int] = {}
        self._inner = AIOKafkaConsumer(
            **client_options(settings),
            group_id=group,
            group_instance_id=member if settings.static_members else None,
            enable_auto_commit=False,
            # With "earliest" a position beyond the end would silently begin again at the log's start.
            auto_offset_reset="none",
            isolation_level="read_committed" if read_committed else "read_uncommitted",
            session_timeout_ms=settings.session_timeout_ms,
            heartbeat_interval_ms=settings.heartbeat_interval_ms,
            rebalance_timeout_ms=settings.rebalance_timeout_ms,
            fetch_max_wait_ms=settings.fetch_max_wait_ms if group else min(settings.fetch_max_wait_ms, LOOKING_WAIT_MS),
            fetch_max_bytes=settings.fetch_max_bytes,
            max_partition_fetch_bytes=settings.max_partition_fetch_bytes,
        )
        make_lasting(self._inner._client)  # noqa: SLF001 - aiokafka offers no other way
        self._tolerant = TolerantReader(
            self._inner._client,  # noqa: SLF001 - aiokafka offers no other way
            read_committed=read_committed,
            max_bytes=settings.max_partition_fetch_bytes,
            limit=settings.max_record_bytes,
        )

    async def start(self) -> None:
        async with connecting(self._settings, f"Connecting to Kafka at {self._settings.bootstrap}"):
            try:
                async with asyncio.timeout(connect_limit_s(self._settings)):
                    await self._inner.start()
                limit = self._settings.max_record_bytes
                self._unreadable = make_lean(self._inner, limit=limit, in_columns=self._in_columns)
                if self._group is not None:
                    self._membership = Membership(self._inner, self._settings)
            except BaseException:
                await self.stop()
                raise

    async def stop(self, *, leave_group: bool = True) -> None:
        """Stop within the stop timeout; past it the connections are closed under the consumer.

        With ``leave_group`` False a static member only falls silent, so it finds its partitions when it is back
        within the session.
        """
        limit_s = self._settings.stop_timeout_ms / 1000
        if leave_group and self._membership is not None:
            await self._membership.leave(limit_s)
        self._membership = None
        # In a task of its own: aiokafka's stop can hang, raise, and even let a cancellation inside it escape.
        stopping = asyncio.ensure_future(self._stop_inner())
        try:
            await asyncio.wait((stopping,), timeout=limit_s)
        finally:
            ended = "it was cancelled" if stopping.cancelled() else stopping.done() and stopping.exception()
            failure = ended if stopping.done() else "it hung"
            if failure:
                stopping.cancel()
                log.info("Stopping a consumer did not end well (%s); closing its connections", failure)
                await self._inner._client.close()  # noqa: SLF001 - aiokafka offers no other way

    async def _stop_inner(self) -> None:
        # While aiokafka ends the fetches of an earlier assignment it takes a cancellation of its fetching task for one
        # of theirs, and its stop then waits for ever. So the task is cancelled here first, until it has ended.
        fetcher = self._inner._fetcher  # noqa: SLF001 - aiokafka offers no other way
        while fetcher is not None and not fetcher._fetch_task.done():  # noqa: SLF001
            fetcher._fetch_task.cancel()  # noqa: SLF001
            await asyncio.wait((fetcher._fetch_task,), timeout=CANCEL_AGAIN_S)  # noqa: SLF001
        await self._inner.stop()

    async def subscribe(self, topics: Sequence[str], listener: RebalanceListener) -> None:
        for topic in topics:
            if not await self.partitions_of(topic):
                raise UnknownTopicError(
                    f"There is no topic {topic} to read. Create it first, for example by `headrace topics apply`."
                )
        if self._group is None:
            raise KafkaError("Only a consumer of a group can subscribe; give it a group, or assign partitions.")
        with translating(f"Subscribing to {', '.join(topics)}"):
            self._inner.subscribe(list(topics), listener=_Listener(self._begin_assignment, listener))

    def assign(self, partitions: Collection[TopicPartition]) -> None:
        with translating("Assigning partitions"):
            self._inner.assign([TheirPartition(*partition) for partition in partitions])
        self._begin_assignment()

    def assignment(self) -> frozenset[TopicPartition]:
        return frozenset(TopicPartition(*partition) for partition in self._inner.assignment())

    def seek(self, partition: TopicPartition, offset: int) -> None:
        with translating(f"Seeking {partition.topic}[{partition.partition}] to {offset}"):
            self._inner.seek(TheirPartition(*partition), offset)
        self._sought.add(partition)
        if partition not in self._paused:
            self._inner.resume(TheirPartition(*partition))

    async def position(self, partition: TopicPartition) -> int:
        return (await self.positions((partition,)))[partition]

    async def positions(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        assigned = self._inner.assignment()
        for topic, number in partitions:
            if (topic, number) not in assigned:
                raise RebalancedError(f"{topic}[{number}] is not assigned to this consumer (any more).")
            if (topic, number) not in self._sought:
                raise KafkaError(f"{topic}[{number}] has no position yet; seek it first.")
        # Sought, so known: aiokafka is asked only where it has dropped a position in between.
        assignment = self._inner._subscription.subscription.assignment if assigned else None  # noqa: SLF001
        known = {name: assignment.state_value(name)._position for name in partitions} if assignment else {}  # noqa: SLF001
        for name in [name for name, position in known.items() if position is None]:
            with translating(f"Asking for the position in {name.topic}[{name.partition}]"):
                async with asyncio.timeout(self._request_timeout_s):
                    known[name] = int(await self._inner.position(TheirPartition(*name)))
        return known

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        assigned = self._assigned(partitions)
        self._paused.update(TopicPartition(*partition) for partition in assigned)
        self._inner.pause(*assigned)

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        self._paused.difference_update(partitions)
        self._inner.resume(*self._assigned(self._sought.intersection(partitions)))

    async def fetch(
        self, *, max_records: int, timeout_s: float, partitions: Collection[TopicPartition] = ()
    ) -> Mapping[TopicPartition, Sequence[Record]]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while True:
            remaining = max(0.0, deadline - loop.time())
            chunks = await self._fetch_once(max_records, remaining, partitions)
            if chunks or loop.time() >= deadline:
                return chunks

    def lease_left_s(self) -> float:
        return 0.0 if self._membership is None else self._membership.lease_left_s()

    def rejoin(self) -> None:
        if self._membership is not None:
            self._membership.rejoin()

    def long_batch_steps(self) -> int:
        return self._tolerant.steps

    async def commit(
        self, offsets: Mapping[TopicPartition, int], *, metadata: Mapping[TopicPartition, str] | None = None
    ) -> None:
        texts = metadata or {}
        with translating(f"Committing {quantity(len(offsets), 'offset')} of group {self._group}", needs="Read"):
            async with asyncio.timeout(self._request_timeout_s):
                await self._inner.commit(
                    {TheirPartition(*name): (offset, texts.get(name, "")) for name, offset in offsets.items()}
                )

    async def committed(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, Committed]:
        coordinator = self._inner._coordinator  # noqa: SLF001 - the public way drops the metadata, and asks of one
        if self._group is None or coordinator is None:
            raise KafkaError("A consumer of no group has no committed offsets; give it a group.")
        of = ", ".join(sorted({partition.topic for partition in partitions}))
        with translating(f"Asking what group {self._group} committed for {of}"):
            async with asyncio.timeout(self._request_timeout_s):
                found = await coordinator.fetch_committed_offsets([TheirPartition(*name) for name in partitions])
        return {TopicPartition(*name): Committed(one.offset, one.metadata or "") for name, one in found.items()}

    async def partitions_of(self, topic: str) -> frozenset[int]:
        with translating(f"Asking for the partitions of {topic}"):
            return await partitions_of(self._inner._client, topic)  # noqa: SLF001 - the public way creates the topic

    async def beginning_offsets(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        await self._leaders(partitions)
        with translating("Asking for the first offsets"):
            async with asyncio.timeout(self._request_timeout_s):
                offsets = await self._inner.beginning_offsets([TheirPartition(*partition) for partition in partitions])
        return {TopicPartition(*partition): offset for partition, offset in offsets.items()}

    async def end_offsets(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        leaders = await self._leaders(partitions)
        with translating("Asking for the end offsets"):
            async with asyncio.timeout(self._request_timeout_s):
                listed = await self._inner.end_offsets([TheirPartition(*partition) for partition in partitions])
                ends = {TopicPartition(*partition): offset for partition, offset in listed.items()}
                # The embedded broker lists the offset behind the first record of the last batch, so a fetch is asked.
                return await fetched_ends(
                    self._inner._client,  # noqa: SLF001 - aiokafka offers no other way
                    ends,
                    leaders,
                    read_committed=self._read_committed,
                )

    async def holds_nothing(self, partition: TopicPartition, offset: int, end: int) -> bool:
        with translating(f"Asking what {partition.topic}[{partition.partition}] holds"):
            async with asyncio.timeout(self._request_timeout_s):
                return await holds_nothing(
                    self._inner._client,  # noqa: SLF001 - aiokafka offers no other way
                    partition,
                    offset,
                    end,
                    read_committed=self._read_committed,
                    max_bytes=self._settings.max_partition_fetch_bytes,
                )

    async def offsets_for_times(self, times_ms: Mapping[TopicPartition, int]) -> dict[TopicPartition, int | None]:
        await self._leaders(times_ms)
        with translating("Asking for offsets by time"):
            async with asyncio.timeout(self._request_timeout_s):
                found = await self._inner.offsets_for_times(
                    {TheirPartition(*tp): time for tp, time in times_ms.items()}
                )
        return {TopicPartition(*tp): None if place is None else place.offset for tp, place in found.items()}

    async def _fetch_once(
        self, max_records: int, timeout_s: float, partitions: Collection[TopicPartition]
    ) -> dict[TopicPartition, Sequence[Record]]:
        wanted = self._assigned(partitions)
        if partitions and not wanted:
            await asyncio.sleep(min(timeout_s, REBALANCE_CHECK_S))
            return {}
        for name in self._unreadable.keys() & (wanted or self._inner.assignment()):
            if records := await self._read_tolerantly(TopicPartition(*name), self._unreadable.pop(name), max_records):
                return {TopicPartition(*name): records}
        if self._unreadable.keys() & (wanted or self._inner.assignment()):
            timeout_s = 0.0  # a long batch is in work, a step at a time between fetches
        try:
            with translating("Fetching", needs="Read"):
                async with asyncio.timeout(timeout_s + REBALANCE_CHECK_S):
                    chunks = await self._inner.getmany(
                        *wanted, timeout_ms=int(timeout_s * 1000), max_records=max_records
                    )
        except KafkaError as error:
            if isinstance(error.__cause__, TimeoutError):
                return {}
            if isinstance(error, OffsetOutOfRangeError) and not await self._still_at(error.positions):
                return {}
            raise
        return {TopicPartition(*partition): records for partition, records in chunks.items()}

    async def _read_tolerantly(self, partition: TopicPartition, offset: int, most: int) -> Sequence[Record]:
        """The records at ``offset``, where aiokafka could not go on; none when the position has moved."""
        if partition in self._paused or not await self._still_at({partition: offset}):
            return ()
        with translating(f"Fetching {partition.topic}[{partition.partition}]"):
            async with asyncio.timeout(self._request_timeout_s):
                records, behind, more = await self._tolerant.read(partition, offset, most)
        if not await self._still_at({partition: offset}):
            return ()
        if behind != offset:
            self.seek(partition, behind)
        if more:
            self._unreadable[TheirPartition(*partition)] = behind
        return records

    async def _still_at(self, positions: Mapping[tuple[str, int], int]) -> bool:
        """Whether ``positions``, which an error is about, are still the positions: a seek may have come in between."""
        for (topic, number), offset in positions.items():
            partition = TopicPartition(topic, number)
            if partition not in self._sought or partition not in self._inner.assignment():
                return False
            if await self.position(partition) != offset:
                return False
        return True

    def _assigned(self, partitions: Collection[TopicPartition]) -> list[TheirPartition]:
        assigned = self._inner.assignment()
        return [TheirPartition(*partition) for partition in partitions if partition in assigned]

    def _begin_assignment(self) -> None:
        """Hold every partition until it is sought.

        A partition that is not sought would start at its committed offset. Where nothing is committed, aiokafka would
        fetch nothing from the same broker either.
        """
        self._sought.clear()
        self._paused.clear()
        for partition in self._inner.assignment():
            self._inner.seek(partition, 0)
            self._inner.pause(partition)

    async def _leaders(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """The leader of each partition, below 0 for none. Raises UnknownTopicError for one that does not exist."""
        # aiokafka would wait for a partition that does not exist until the time-out.
        topics = sorted({partition.topic for partition in partitions})
        with translating(f"Asking for the partitions of {', '.join(topics)}"):
            described = await topics_metadata(self._inner._client, topics) if topics else []  # noqa: SLF001
        leaders = {
            TopicPartition(topic["topic"], found["partition"]): found["leader"]
            for topic in described
            for found in topic["partitions"]
        }
        for topic, number in partitions:
            if (topic, number) not in leaders:
                raise UnknownTopicError(f"There is no partition {number} of topic {topic}.")
        # Otherwise aiokafka's first question about a topic fails, and it waits before the second.
        for topic in topics:
            await self._inner._client.add_topic(topic)  # noqa: SLF001
        return leaders


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """Hands aiokafka's callbacks on."""

    def __init__(self, begin_assignment: Callable[[], None], listener: RebalanceListener) -> None:
        self._begin_assignment = begin_assignment
        self._listener = listener

    async def on_partitions_revoked(self, revoked: Collection[TheirPartition]) -> None:
        await self._listener.revoked([TopicPartition(*partition) for partition in revoked])

    async def on_partitions_assigned(self, assigned: Collection[TheirPartition]) -> None:
        self._begin_assignment()
        await self._listener.assigned([TopicPartition(*partition) for partition in assigned])
