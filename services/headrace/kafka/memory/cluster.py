"""A Kafka cluster inside the process, for tests: partitions, groups, rebalances, offsets and headers on a given clock.

It keeps Kafka's rules where a service could trip over them: nothing fences a zombie's produce, a rebalance revokes
everything, a silent member is evicted, offsets can be cut off, missing or begin anew. A test drives it by ``faults``
(see :class:`headrace.kafka.memory.broker.Faults`), by ``rng`` and by the methods of :class:`MemoryCluster` and of its
broker. It uses asyncio and the clock alone, so that it runs under an event loop whose time jumps.
"""

from __future__ import annotations

import random
from contextlib import AbstractContextManager, nullcontext

from headrace.core.clock import Clock
from headrace.kafka.memory.admin import MemoryAdmin
from headrace.kafka.memory.broker import Faults, MemoryBroker, MemoryProcess, MemoryTimings
from headrace.kafka.memory.consumer import MemoryConsumer
from headrace.kafka.memory.producer import MemoryProducer


class MemoryNode(MemoryProcess):
    """A process's view of the twin, fulfilling :class:`headrace.kafka.interface.Cluster`."""

    @property
    def bootstrap(self) -> str:
        return "memory"

    async def why_away(self) -> str | None:
        """Never: a fault is one of a call."""
        return None

    def calmed(self) -> AbstractContextManager[None]:
        return nullcontext()

    def consumer(
        self, *, group: str | None = None, member: str | None = None, read_committed: bool = False
    ) -> MemoryConsumer:
        """``read_committed`` changes nothing: the twin has no transactions."""
        del read_committed
        consumer = MemoryConsumer(self, group=group, member=member)
        self._members.append(consumer)
        return consumer

    def producer(self) -> MemoryProducer:
        return MemoryProducer(self)

    def admin(self) -> MemoryAdmin:
        return MemoryAdmin(self)


class MemoryCluster(MemoryBroker):
    """The twin, which fulfils :class:`headrace.kafka.interface.Cluster` for the process "local".

    Made inside a running event loop; :meth:`close` ends its tasks.
    """

    def __init__(
        self,
        clock: Clock,
        rng: random.Random | None = None,
        faults: Faults | None = None,
        timings: MemoryTimings | None = None,
    ) -> None:
        super().__init__(clock, rng, faults, timings)
        self._nodes: dict[str, MemoryNode] = {}

    def node(self, name: str) -> MemoryNode:
        """The process ``name``; a new one when there is none, or when it was killed."""
        node = self._nodes.get(name)
        if node is None or node.dead:
            node = self._nodes[name] = MemoryNode(self, name)
        return node

    @property
    def bootstrap(self) -> str:
        return self.node("local").bootstrap

    async def why_away(self) -> str | None:
        return await self.node("local").why_away()

    def calmed(self) -> AbstractContextManager[None]:
        return self.node("local").calmed()

    def consumer(
        self, *, group: str | None = None, member: str | None = None, read_committed: bool = False
    ) -> MemoryConsumer:
        return self.node("local").consumer(group=group, member=member, read_committed=read_committed)

    def producer(self) -> MemoryProducer:
        return self.node("local").producer()

    def admin(self) -> MemoryAdmin:
        return self.node("local").admin()

    def freeze(self, name: str) -> None:
        """SIGSTOP: the node's calls wait and its heartbeats stop; what is under way ends after the thaw."""
        self.node(name).freeze()

    def thaw(self, name: str) -> None:
        """SIGCONT."""
        self.node(name).thaw()

    def cut_coordinator(self, name: str) -> None:
        """Let the node lose the group's coordinator alone: it fetches and produces as before."""
        self.node(name).cut_coordinator()

    def restore_coordinator(self, name: str) -> None:
        """The node reaches the coordinator again."""
        self.node(name).restore_coordinator()

    def kill(self, name: str) -> None:
        """SIGKILL: heartbeats stop, and every call of the node, waiting or new, raises CancelledError."""
        self.node(name).kill()
