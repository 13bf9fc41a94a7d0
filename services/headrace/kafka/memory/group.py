"""The twin's group coordinator: Kafka's classic protocol as aiokafka uses it (eager: every rebalance revokes all).

A member that is silent (its node is frozen or dead, or its ``assigned`` callback runs) is evicted after the session
timeout. A rebalance waits for every member to join again, at most the rebalance timeout; then members of no static id
that did not come are removed and static ones keep what they had until their session ends, as in Kafka.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping

from headrace.core.clock import Clock
from headrace.kafka.interface import RebalancedError, TopicPartition

Partitions = frozenset[TopicPartition]


class FencedError(Exception):
    """Another process took over the static id of a member that was joining."""


class Member:
    """One membership, from a first join to leave, eviction or fencing."""

    def __init__(self, member_id: str, instance_id: str | None, topics: tuple[str, ...]) -> None:
        self.member_id = member_id
        self.instance_id = instance_id
        self.topics = topics
        self.must_rejoin = asyncio.Event()
        self.fenced = False
        self.joining: asyncio.Future[tuple[int, Partitions]] | None = None
        self.assignment: Partitions = frozenset()
        self.silent_for: set[str] = set()
        self.eviction: asyncio.Task[None] | None = None

    @property
    def slot(self) -> str:
        return self.instance_id or self.member_id


class MemoryGroup:
    """One consumer group: its members, its generation and what it has committed."""

    def __init__(
        self,
        name: str,
        *,
        clock: Clock,
        partitions_of: Callable[[str], Iterable[TopicPartition]],
        spawn: Callable[..., asyncio.Task[None]],
        session_timeout_s: float,
        rebalance_timeout_s: float,
    ) -> None:
        self.name = name
        self.generation = 0
        self.offsets: dict[TopicPartition, int] = {}
        self.metadata: dict[TopicPartition, str] = {}
        self._clock = clock
        self._partitions_of = partitions_of
        self._spawn = spawn
        self._session_timeout_s = session_timeout_s
        self._rebalance_timeout_s = rebalance_timeout_s
        self._members: dict[str, Member] = {}
        self._deadline: asyncio.Task[None] | None = None

    async def join(self, member: Member) -> tuple[int, Partitions]:
        """Join or join again; returns generation and assignment once the rebalance is complete.

        A static member that comes back within its session takes over its place and causes no rebalance.
        Raises FencedError when another process takes over the static id meanwhile.
        """
        before = self._members.get(member.slot)
        self._members[member.slot] = member
        if before is not None and before is not member:
            self._fence(before)
            if self._deadline is None and before.topics == member.topics:
                member.assignment = before.assignment
                return self.generation, member.assignment
        member.must_rejoin.clear()
        member.joining = asyncio.get_running_loop().create_future()
        joining = member.joining
        if self._deadline is None:
            self.rebalance()
        self._complete_when_all_joined()
        return await joining

    def leave(self, member: Member) -> None:
        """Take the member out, at once."""
        self.heard(member)
        if self._members.get(member.slot) is not member:
            return
        del self._members[member.slot]
        member.must_rejoin.set()
        if self._deadline is None:
            self.rebalance()
        self._complete_when_all_joined()

    def silent(self, member: Member, reason: str) -> None:
        """No heartbeat comes from now on, because of ``reason``."""
        member.silent_for.add(reason)
        if member.eviction is None:
            member.eviction = self._spawn(self._evict_later(member))

    def heard(self, member: Member, reason: str | None = None) -> None:
        """``reason`` for silence (None: every one) is over."""
        member.silent_for.discard(reason) if reason else member.silent_for.clear()
        if not member.silent_for and member.eviction is not None:
            member.eviction.cancel()
            member.eviction = None

    def heartbeat(self, member: Member, generation: int) -> bool:
        """Whether a heartbeat is answered without an error: the generation is the group's, and no rebalance is on."""
        return self._members.get(member.slot) is member and generation == self.generation and self._deadline is None

    def rebalance(self, topic: str | None = None) -> None:
        """Ask all members to join again (when ``topic`` is given: only if a member reads it)."""
        members = self._members.values()
        if not members or (topic is not None and all(topic not in member.topics for member in members)):
            return
        if self._deadline is None:
            self._deadline = self._spawn(self._complete_at_deadline())
        for member in members:
            if member.joining is None:
                member.must_rejoin.set()

    def commit(
        self,
        member: Member | None,
        generation: int,
        offsets: Mapping[TopicPartition, int],
        metadata: Mapping[TopicPartition, str],
    ) -> None:
        """Store ``offsets``, each with its text of ``metadata`` or with none.

        Raises RebalancedError for another generation or a member that is none.
        """
        if member is None:
            if self._members:
                raise RebalancedError(f"Group {self.name} has members; only they can commit for it.")
        elif self._members.get(member.slot) is not member or generation != self.generation:
            raise RebalancedError(
                f"Commit for group {self.name} from generation {generation}, but it is at {self.generation}; "
                "the partitions may belong to another member now."
            )
        self.offsets.update(offsets)
        self.metadata |= {name: metadata.get(name, "") for name in offsets}

    def _fence(self, member: Member) -> None:
        member.fenced = True
        self.heard(member)
        member.must_rejoin.set()
        if member.joining is not None and not member.joining.done():
            member.joining.set_exception(FencedError())

    async def _evict_later(self, member: Member) -> None:
        await self._clock.sleep(self._session_timeout_s)
        member.eviction = None
        self.leave(member)

    async def _complete_at_deadline(self) -> None:
        await self._clock.sleep(self._rebalance_timeout_s)
        for slot, member in list(self._members.items()):
            if member.joining is None and member.instance_id is None:
                del self._members[slot]
        self._complete()

    def _complete_when_all_joined(self) -> None:
        if self._deadline is not None and all(member.joining is not None for member in self._members.values()):
            self._deadline.cancel()
            self._complete()

    def _complete(self) -> None:
        self._deadline = None
        self.generation += 1
        assignments = assign_round_robin(
            {slot: member.topics for slot, member in self._members.items()}, self._partitions_of
        )
        for slot, member in self._members.items():
            member.assignment = assignments[slot]
            if member.joining is not None and not member.joining.done():
                member.joining.set_result((self.generation, member.assignment))
            member.joining = None


def assign_round_robin(
    topics: Mapping[str, Iterable[str]], partitions_of: Callable[[str], Iterable[TopicPartition]]
) -> dict[str, Partitions]:
    """Deal the partitions of each topic, in order, to the members that read it, in order of their ids."""
    dealt: dict[str, list[TopicPartition]] = {slot: [] for slot in topics}
    turn = 0
    for topic in sorted({topic for of_member in topics.values() for topic in of_member}):
        readers = sorted(slot for slot, of_member in topics.items() if topic in of_member)
        for partition in partitions_of(topic):
            dealt[readers[turn % len(readers)]].append(partition)
            turn += 1
    return {slot: frozenset(partitions) for slot, partitions in dealt.items()}
