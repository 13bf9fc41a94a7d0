"""The twin consumer's life in its group: the background task that aiokafka calls its coordination routine."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from typing import TYPE_CHECKING

from headrace.kafka.errors import ConsumerDeadError, KafkaError
from headrace.kafka.interface import RebalanceListener, TopicPartition
from headrace.kafka.memory.group import Member, MemoryGroup

if TYPE_CHECKING:
    from headrace.kafka.memory.node import MemoryNode

log = logging.getLogger(__name__)


class Membership:
    """Hears of a rebalance at the next heartbeat, revokes everything, joins again, takes what it is given.

    ``revoking`` is told when a rebalance begins for this member, ``assigning`` what it got, ``failed`` the error that
    ended the membership.
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
        self._node = node
        self._cluster = node.cluster
        self._group = group
        self._listener = listener
        self._revoking = revoking
        self._assigning = assigning
        self._failed = failed
        self._task = node.cluster.spawn(self._run())

    def silent(self, reason: str) -> None:
        """Send no heartbeats until :meth:`heard`."""
        self._group.silent(self.member, reason)

    def heard(self, reason: str) -> None:
        self._group.heard(self.member, reason)

    def cancel(self) -> None:
        self._task.cancel()

    async def end(self, *, leave_group: bool) -> None:
        """Leave the group, or only fall silent, so that a static id keeps its partitions for a session."""
        self._task.cancel()
        await asyncio.wait([self._task])
        if leave_group:
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
        except KafkaError as failure:
            self._failed(failure)

    async def _rebalance_noticed(self) -> None:
        await self.member.must_rejoin.wait()
        await self._node.gate()
        if self.member.fenced:
            raise self._group.fenced_error(self.member)
        await self._cluster.clock.sleep(self._cluster.rng.uniform(0, self._cluster.timings.heartbeat_interval_s))
        await self._node.gate()

    async def _join(self) -> tuple[int, frozenset[TopicPartition]]:
        while True:
            try:
                await self._node.point("join.before")
                joined = await self._group.join(self.member)
                await self._node.gate()
            except ConsumerDeadError:
                raise
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
