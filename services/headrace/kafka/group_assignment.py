"""What a group gives to one of its members: what the rebalance listeners of a worker and of a reader have in common.

The whole group waits for the rebalance callbacks, so they do little: heartbeats stop while ``assigned`` runs, and the
others can't go on while ``revoked`` does. Partitions are paused as they come. A task finds where each one goes on, and
then it is fetched from there. Giving partitions up takes a bounded time.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Mapping
from typing import Any

from headrace.kafka.interface import Consumer, KafkaError, TopicPartition
from headrace.process.logs import event


class FetchPosition:
    """Where one partition is fetched next, for one assignment of it."""

    def __init__(self) -> None:
        self.expected: int | None = None
        """The next offset to fetch; None until it is known where the partition goes on."""
        self.gap: tuple[int, int] | None = None
        """(expected, first offset fetched) of a gap that was seen once."""

    def follows_on(self, first: int, expected: int) -> bool:
        """Whether a chunk may be taken that begins at ``first``.

        A chunk with a gap in front of it may be from a fetch that a rebalance overtook; only a gap that is seen twice
        is one of the log. Where the answer is no, the partition is to be sought at ``expected`` again.
        """
        if first == expected or (first > expected and self.gap == (expected, first)):
            self.gap = None
            return True
        self.gap = (expected, first)
        return False


class GroupAssignment(ABC):
    """The tasks of a member's rebalance listener, and the release of partitions within a time limit."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self._stopped = False
        self._tasks: set[asyncio.Task[None]] = set()

    @abstractmethod
    def _broken(self, error: BaseException) -> None:
        """A task failed with ``error``, which trying again does not mend."""

    def _beside(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Do ``work`` in a task, outside of the callback."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._broken(error)

    def _fetch_from(self, positions: Mapping[TopicPartition, int]) -> None:
        """Fetch partitions, which were paused, from where they go on."""
        for name, position in positions.items():
            self._consumer.seek(name, position)
        self._consumer.resume(positions)

    async def _released(self, release: Coroutine[Any, Any, None], limit_s: float, late: str) -> None:
        """Wait for ``release``, at most ``limit_s`` seconds. What fails is logged, ``late`` when the time was over."""
        try:
            async with asyncio.timeout(limit_s):
                await release
        except (KafkaError, TimeoutError) as error:
            event("release.failed", level="warning", error=str(error) or late)

    def _cease(self) -> None:
        """Begin nothing more."""
        self._stopped = True
        for task in self._tasks:
            task.cancel()
