"""The twin consumer's life in its group: the background task that aiokafka calls its coordination routine."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from typing import TYPE_CHECKING

from headrace.core.lease import lease_of
from headrace.core.takeovers import Takeovers
from headrace.kafka.errors import KafkaError
from headrace.kafka.interface import RebalanceListener, TopicPartition
from headrace.kafka.memory.group import FencedError, Member, MemoryGroup
from headrace.kafka.takeovers import static_id_given_up

if TYPE_CHECKING:
    from headrace.kafka.memory.node import MemoryNode

log = logging.getLogger(__name__)


class Membership:
    """Hears of a rebalance at the next heartbeat, revokes everything, joins again, takes what it is given.

    ``revoking`` is told when a rebalance begins for this member, ``assigning`` what it got, ``failed`` the error that
    ended the membership. A static member that was taken over joins again under its id, as aiokafka does, until
    :class:`~headrace.core.takeovers.Takeovers` says to give the id up.
    """

    def __init__(
        self,
        node: MemoryNode,
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
            session_s=node.cluster.timings.session_timeout_s, rebalance_s=node.cluster.timings.rebalance_timeout_s
        )
        self._takeovers = Takeovers()
        self._node = node
        self._cluster = node.cluster
        self._group = group
        self._listener = listener
        self._revoking = revoking
        self._assigning = assigning
        self._failed = failed
        self._task = node.cluster.spawn(self._run())
        self._beating = node.cluster.spawn(self._beat())

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
        if leave_group and self._node.reaches_coordinator:
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
        await self._node.coordinator()
        await self._cluster.clock.sleep(self._cluster.rng.uniform(0, self._cluster.timings.heartbeat_interval_s))
        await self._node.coordinator()

    async def _beat(self) -> None:
        """Heartbeats take no time here, so sending and arriving are one moment."""
        while True:
            await self._cluster.clock.sleep(self._cluster.timings.heartbeat_interval_s)
            await self._node.coordinator()
            if not self.member.silent_for and self._group.heartbeat(self.member, self.generation):
                self.lease = self.lease.renewed(self._of, self._cluster.clock.monotonic())

    @property
    def _of(self) -> tuple[str, int]:
        return self.member.member_id, self.generation

    def _taken_over(self) -> None:
        """Another process joined under the static id: join again as another member, at last without the id."""
        former = self.member
        self._takeovers = self._takeovers.another(self._cluster.clock.monotonic())
        instance_id = None if self._takeovers.alternate else former.instance_id
        if instance_id is None:
            static_id_given_up(self._group.name, former.instance_id)
        self.member = Member(self._cluster.next_member_id(self._node.name), instance_id, former.topics)

    async def _join(self) -> tuple[int, frozenset[TopicPartition]]:
        while True:
            try:
                await self._node.coordinator()
                await self._node.point("join.before")
                joined = await self._group.join(self.member)
                # The group sends the assignments at once, as the answers to SyncGroup requests that wait for them.
                self.lease = self.lease.begun((self.member.member_id, joined[0]), self._cluster.clock.monotonic())
                await self._node.gate()
            except FencedError:
                self._taken_over()
            except KafkaError as error:
                if not error.retriable:
                    raise
                log.info("Joining group %s failed, trying again: %s", self._group.name, error)
                await self._cluster.clock.sleep(self._cluster.timings.heartbeat_interval_s)
            else:
                return joined

    async def _tell(self, callback: Awaitable[None]) -> None:
        try:
            await callback
        except Exception as error:
            # aiokafka logs what a callback raises and goes on, so its twin has to.
            log.exception("A rebalance callback of group %s failed", self._group.name)
            self._cluster.callback_errors.append(error)
