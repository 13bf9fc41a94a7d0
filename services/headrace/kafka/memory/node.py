"""One simulated process of the twin: it can be frozen (SIGSTOP), thawed (SIGCONT) and killed (SIGKILL)."""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Protocol

from headrace.kafka.memory.admin import MemoryAdmin
from headrace.kafka.memory.consumer import MemoryConsumer
from headrace.kafka.memory.producer import MemoryProducer

if TYPE_CHECKING:
    from headrace.kafka.memory import MemoryCluster


class Faults(Protocol):
    """What a test does to calls: wait, raise a KafkaError, or nothing.

    ``name`` is the operation with ``.before`` or ``.after`` its effect: fetch, produce, commit, committed, metadata,
    offsets, join, admin. An error raised ``after`` is an acknowledgement that got lost.
    """

    async def point(self, member: str, name: str) -> None: ...


class MemoryNode:
    """A process's view of the twin, fulfilling :class:`headrace.kafka.interface.Cluster`."""

    def __init__(self, cluster: MemoryCluster, name: str) -> None:
        self.cluster = cluster
        self.name = name
        self.dead = False
        self._running = asyncio.Event()
        self._running.set()
        self._coordinator = asyncio.Event()
        self._coordinator.set()
        self._consumers: list[MemoryConsumer] = []

    @property
    def bootstrap(self) -> str:
        return self.cluster.bootstrap

    async def why_away(self) -> str | None:
        return await self.cluster.why_away()

    def calmed(self) -> AbstractContextManager[None]:
        return nullcontext()

    def consumer(
        self, *, group: str | None = None, member: str | None = None, read_committed: bool = False
    ) -> MemoryConsumer:
        """``read_committed`` changes nothing: the twin has no transactions."""
        del read_committed
        consumer = MemoryConsumer(self, group=group, member=member)
        self._consumers.append(consumer)
        return consumer

    def producer(self) -> MemoryProducer:
        return MemoryProducer(self)

    def admin(self) -> MemoryAdmin:
        return MemoryAdmin(self)

    async def point(self, name: str) -> None:
        """Where a call can be held up: by the faults given, by a freeze, or for ever by death."""
        await self.gate()
        if self.cluster.faults is None:
            await asyncio.sleep(0)  # a real call always lets others run
        else:
            await self.cluster.faults.point(self.name, name)
        await self.gate()

    async def gate(self) -> None:
        """Pass while the process runs. Raises CancelledError once it was killed."""
        await self._running.wait()
        if self.dead:
            raise asyncio.CancelledError(f"{self.name} was killed")

    async def coordinator(self) -> None:
        """Pass while the group's coordinator can be reached."""
        await self._coordinator.wait()
        await self.gate()

    def cut_coordinator(self) -> None:
        """The coordinator can't be reached any more, and all brokers can."""
        self._coordinator.clear()
        for consumer in self._consumers:
            consumer.fall_silent("cut off")

    def restore_coordinator(self) -> None:
        self._coordinator.set()
        for consumer in self._consumers:
            consumer.speak_again("cut off")

    @property
    def reaches_coordinator(self) -> bool:
        return self._coordinator.is_set()

    def freeze(self) -> None:
        self._running.clear()
        for consumer in self._consumers:
            consumer.fall_silent("frozen")

    def thaw(self) -> None:
        self._running.set()
        for consumer in self._consumers:
            consumer.speak_again("frozen")

    def kill(self) -> None:
        self.dead = True
        for consumer in self._consumers:
            consumer.die()
        self._running.set()
        self._coordinator.set()
