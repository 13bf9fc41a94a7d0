"""The twin's consumer and its membership of a group, with the habits of aiokafka that a service has to live with.

A fetch that waits while the group rebalances goes on under the new assignment. It may then deliver records from the
committed position although nobody sought there, and move the position that the new owner is about to use.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from headrace.core.lease import lease_of
from headrace.kafka.interface import (
    BrokerUnavailableError,
    Committed,
    ConsumerDeadError,
    FetchedRecord,
    KafkaError,
    OffsetOutOfRangeError,
    RebalancedError,
    RebalanceListener,
    TopicPartition,
)
from headrace.kafka.static_membership import Takeovers, static_id_given_up
from tests.support.memory_kafka.broker import FencedError, Member, MemoryGroup, PartitionLog

if TYPE_CHECKING:
    from tests.support.memory_kafka.cluster import MemoryNode

log = logging.getLogger(__name__)


class Membership:
    """The task that aiokafka calls its coordination routine.

    It hears of a rebalance at the next heartbeat, revokes everything, joins again and takes what it is given.

    ``revoking`` is told when a rebalance begins for this member, ``assigning`` what it got, ``failed`` the error that
    ended the membership. A static member that was taken over joins again under its id, as aiokafka does, until
    :class:`~headrace.kafka.static_membership.Takeovers` says to give the id up.
    """

    def __init__(
        self,
        process: MemoryNode,
        group: MemoryGroup,
        member: Member,
        listener: RebalanceListener,
        *,
        revoking: Callable[[], frozenset[TopicPartition]],
        assigning: Callable[[Collection[TopicPartition]], None],
        failed: Callable[[KafkaError], None],
    ) -> None:
        self.member = member
        self.generation = -1
        self.lease = lease_of(
            session_s=process.broker.timings.session_timeout_s, rebalance_s=process.broker.timings.rebalance_timeout_s
        )
        self._takeovers = Takeovers()
        self._process = process
        self._broker = process.broker
        self._group = group
        self._listener = listener
        self._revoking = revoking
        self._assigning = assigning
        self._failed = failed
        self._task = process.broker.spawn(self._run())
        self._beating = process.broker.spawn(self._beat())

    def silent(self, reason: str) -> None:
        """Send no heartbeats until :meth:`heard`."""
        self._group.silent(self.member, reason)

    def heard(self, reason: str) -> None:
        self._group.heard(self.member, reason)

    def cancel(self) -> None:
        self._task.cancel()
        self._beating.cancel()

    async def end(self, *, leave_group: bool) -> None:
        """Leave the group, or only fall silent, so that a static id keeps its partitions for a session.

        Without the coordinator nobody can be told.
        """
        self.cancel()
        await asyncio.wait([self._task, self._beating])
        if leave_group and self._process.reaches_coordinator:
            self._group.leave(self.member)
        else:
            self.silent("stopped")

    async def _run(self) -> None:
        try:
            while True:
                self.generation, assigned = await self._join()
                self._assigning(assigned)
                self.silent("assigned")  # aiokafka sends no heartbeats while this callback runs
                await self._tell(self._listener.assigned(assigned))
                self.heard("assigned")
                await self._rebalance_noticed()
                await self._tell(self._listener.revoked(self._revoking()))
                if self.member.fenced:
                    self._taken_over()
        except KafkaError as failure:
            self._failed(failure)

    async def _rebalance_noticed(self) -> None:
        await self.member.must_rejoin.wait()
        await self._process.coordinator()
        await self._broker.clock.sleep(self._broker.rng.uniform(0, self._broker.timings.heartbeat_interval_s))
        await self._process.coordinator()

    async def _beat(self) -> None:
        """Heartbeats take no time here, so sending and arriving are one moment."""
        while True:
            await self._broker.clock.sleep(self._broker.timings.heartbeat_interval_s)
            await self._process.coordinator()
            if not self.member.silent_for and self._group.heartbeat(self.member, self.generation):
                self.lease = self.lease.renewed(self._of, self._broker.clock.monotonic())

    @property
    def _of(self) -> tuple[str, int]:
        return self.member.member_id, self.generation

    def _taken_over(self) -> None:
        """Another process joined under the static id: join again as another member, at last without the id."""
        former = self.member
        self._takeovers = self._takeovers.another(self._broker.clock.monotonic())
        instance_id = None if self._takeovers.alternate else former.instance_id
        if instance_id is None:
            static_id_given_up(self._group.name, former.instance_id)
        self.member = Member(self._broker.next_member_id(self._process.name), instance_id, former.topics)

    async def _join(self) -> tuple[int, frozenset[TopicPartition]]:
        while True:
            try:
                await self._process.coordinator()
                await self._process.point("join.before")
                joined = await self._group.join(self.member)
                # The group sends the assignments at once, as the answers to SyncGroup requests that wait for them.
                self.lease = self.lease.begun((self.member.member_id, joined[0]), self._broker.clock.monotonic())
                await self._process.gate()
            except FencedError:
                self._taken_over()
            except KafkaError as error:
                if not error.retriable:
                    raise
                log.info("Joining group %s failed, trying again: %s", self._group.name, error)
                await self._broker.clock.sleep(self._broker.timings.heartbeat_interval_s)
            else:
                return joined

    async def _tell(self, callback: Awaitable[None]) -> None:
        try:
            await callback
        except Exception as error:
            # aiokafka logs what a callback raises and goes on, so its twin has to.
            log.exception("A rebalance callback of group %s failed", self._group.name)
            self._broker.callback_errors.append(error)


Chunks = dict[TopicPartition, list[FetchedRecord]]


class MemoryConsumer:
    """Fulfils :class:`headrace.kafka.interface.Consumer`."""

    def __init__(self, process: MemoryNode, *, group: str | None, member: str | None) -> None:
        self._process = process
        self._broker = process.broker
        self._group = None if group is None else self._broker.group(group)
        self._instance_id = member
        self._membership: Membership | None = None
        self._epoch = 0
        self._assigned: dict[TopicPartition, int | None] = {}  # positions; None: never sought and nothing committed
        self._sought: set[TopicPartition] = set()
        self._paused: set[TopicPartition] = set()
        self._rebalancing = False
        self._failure: KafkaError | None = None
        self._wakers: dict[Callable[[], None], None] = {}

    async def start(self) -> None:
        await self._process.point("metadata.before")

    async def stop(self, *, leave_group: bool = True) -> None:
        self._failure = ConsumerDeadError("This consumer was stopped.")
        await self._end_membership(leave_group=leave_group)
        self._wake()

    async def subscribe(self, topics: Sequence[str], listener: RebalanceListener) -> None:
        self._check()
        if self._group is None:
            raise KafkaError("Only a consumer of a group can subscribe; give it a group, or assign partitions.")
        for topic in topics:
            self._broker.topic(topic)
        await self._end_membership(leave_group=True)
        self._membership = Membership(
            self._process,
            self._group,
            Member(self._broker.next_member_id(self._process.name), self._instance_id, tuple(topics)),
            listener,
            revoking=self._begin_rebalance,
            assigning=self._reassign,
            failed=self._fail,
        )

    def assign(self, partitions: Collection[TopicPartition]) -> None:
        self._check()
        self._reassign(partitions)

    def assignment(self) -> frozenset[TopicPartition]:
        return frozenset(self._assigned)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self._check()
        self._own(partition)
        self._assigned[partition] = offset
        self._sought.add(partition)
        self._wake()

    async def position(self, partition: TopicPartition) -> int:
        self._check()
        self._own(partition)
        position = self._assigned[partition]
        if partition not in self._sought or position is None:
            raise KafkaError(f"{partition.topic}[{partition.partition}] has no position yet; seek it first.")
        return position

    async def positions(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        return {partition: await self.position(partition) for partition in partitions}

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        self._paused.update(self._assigned.keys() & set(partitions))

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        self._paused.difference_update(partitions)
        self._wake()

    def long_batch_steps(self) -> int:
        return 0  # nothing is packed here

    async def fetch(
        self, *, max_records: int, timeout_s: float, partitions: Collection[TopicPartition] = ()
    ) -> Mapping[TopicPartition, Sequence[FetchedRecord]]:
        await self._process.point("fetch.before")
        deadline = self._broker.clock.monotonic() + timeout_s
        epoch = self._epoch
        while True:
            self._check()
            # As with aiokafka, a fetch that a rebalance overtook knows nothing of the seeks of the new assignment.
            overtaken = self._epoch != epoch and self._broker.rng.random() < 0.5
            chunks = {} if self._rebalancing else self._take(max_records, partitions, overtaken=overtaken)
            remaining = deadline - self._broker.clock.monotonic()
            if chunks or remaining <= 0:
                break
            await self._wait_for_change(remaining)
            await self._process.gate()
        await self._process.point("fetch.after")
        return chunks

    def lease_left_s(self) -> float:
        if self._membership is None:
            return 0.0
        return self._membership.lease.left_s(self._broker.clock.monotonic())

    def rejoin(self) -> None:
        if self._membership is not None:
            self._membership.member.must_rejoin.set()

    async def commit(
        self, offsets: Mapping[TopicPartition, int], *, metadata: Mapping[TopicPartition, str] | None = None
    ) -> None:
        self._check()
        await self._coordinator("Committing")
        await self._process.point("commit.before")
        if self._group is None:
            raise KafkaError("A consumer of no group can't commit; give it a group.")
        for partition in offsets:
            self._own(partition)
            self._broker.log(partition)  # Kafka keeps no offset of a topic that is gone
        if self._membership is None:
            self._group.commit(None, -1, offsets, metadata or {})
        else:
            self._group.commit(self._membership.member, self._membership.generation, offsets, metadata or {})
        await self._process.point("commit.after")

    async def committed(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, Committed]:
        self._check()
        await self._coordinator("Asking for the committed offset")
        await self._process.point("committed.before")
        if self._group is None:
            raise KafkaError("A consumer of no group has no committed offsets; give it a group.")
        offsets, texts = self._group.offsets, self._group.metadata
        return {name: Committed(offsets[name], texts.get(name, "")) for name in partitions if name in offsets}

    async def partitions_of(self, topic: str) -> frozenset[int]:
        await self._process.point("metadata.before")
        return self._broker.partition_numbers(topic)

    async def beginning_offsets(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        await self._process.point("offsets.before")
        return {partition: self._broker.log(partition).start for partition in partitions}

    async def end_offsets(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        await self._process.point("offsets.before")
        return {partition: self._broker.log(partition).end for partition in partitions}

    async def holds_nothing(self, partition: TopicPartition, offset: int, end: int) -> bool:
        await self._process.point("fetch.before")
        log = self._broker.find_log(partition)
        if log is None or log.end < end:
            return False
        return not any(record.offset < end for record in log.read(offset, 1))

    async def offsets_for_times(self, times_ms: Mapping[TopicPartition, int]) -> dict[TopicPartition, int | None]:
        await self._process.point("offsets.before")
        return {partition: self._broker.log(partition).offset_at(time) for partition, time in times_ms.items()}

    def fall_silent(self, reason: str) -> None:
        """Send no heartbeats until :meth:`speak_again`."""
        if self._membership is not None:
            self._membership.silent(reason)

    def speak_again(self, reason: str) -> None:
        if self._membership is not None:
            self._membership.heard(reason)

    def die(self) -> None:
        """End as a killed process does: no leave, no callback, no heartbeat."""
        if self._membership is not None:
            self._membership.silent("killed")
            self._membership.cancel()
        self._wake()

    def _take(self, limit: int, wanted: Collection[TopicPartition], *, overtaken: bool) -> Chunks:
        chunks: Chunks = {}
        outside: dict[tuple[str, int], int] = {}
        for partition, position in list(self._assigned.items()):
            ready = partition in self._sought or overtaken
            if position is None or not ready or partition in self._paused or (wanted and partition not in wanted):
                continue
            partition_log = self._broker.find_log(partition)
            if partition_log is None:
                continue
            if not partition_log.start <= position <= partition_log.end:
                outside[partition] = position
                continue
            records = partition_log.read(position, limit)
            limit -= len(records)
            # Drained partitions go to the end of the order, as in aiokafka's dict of fetched records.
            del self._assigned[partition]
            self._assigned[partition] = records[-1].offset + 1 if records else partition_log.end
            if records:
                chunks[partition] = records
            if limit <= 0:
                break
        if outside and not chunks:
            raise OffsetOutOfRangeError(outside)
        return chunks

    async def _wait_for_change(self, seconds: float) -> None:
        changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def wake() -> None:
            if not changed.done():
                changed.set_result(None)

        logs: list[PartitionLog] = [found for tp in self._assigned if (found := self._broker.find_log(tp)) is not None]
        for watched in logs:
            watched.watch(wake)
        self._wakers[wake] = None
        timer = asyncio.ensure_future(self._broker.clock.sleep(seconds))
        try:
            await asyncio.wait((changed, timer), return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
            del self._wakers[wake]
            for watched in logs:
                watched.unwatch(wake)

    def _wake(self) -> None:
        for wake in tuple(self._wakers):
            wake()

    async def _coordinator(self, doing: str) -> None:
        """Raises BrokerUnavailableError where the coordinator stays out of reach for a request's time-out."""
        if self._group is None or self._process.reaches_coordinator:
            return
        reached = asyncio.ensure_future(self._process.coordinator())
        late = asyncio.ensure_future(self._broker.clock.sleep(self._broker.timings.request_timeout_s))
        try:
            await asyncio.wait((reached, late), return_when=asyncio.FIRST_COMPLETED)
            if not reached.done():
                raise BrokerUnavailableError(f"{doing} failed: the coordinator of the group can't be reached.")
            await reached
        finally:
            reached.cancel()
            late.cancel()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _own(self, partition: TopicPartition) -> None:
        if partition not in self._assigned:
            raise RebalancedError(f"{partition[0]}[{partition[1]}] is not assigned to this consumer (any more).")

    def _reassign(self, partitions: Collection[TopicPartition]) -> None:
        committed = {} if self._group is None else self._group.offsets
        self._assigned = {partition: committed.get(partition) for partition in sorted(partitions)}
        self._sought.clear()
        self._paused.clear()
        self._epoch += 1
        self._rebalancing = False
        self._wake()

    def _begin_rebalance(self) -> frozenset[TopicPartition]:
        self._rebalancing = True
        return self.assignment()

    def _fail(self, error: KafkaError) -> None:
        self._failure = error
        self._wake()

    async def _end_membership(self, *, leave_group: bool) -> None:
        if self._membership is not None:
            membership, self._membership = self._membership, None
            await membership.end(leave_group=leave_group)
