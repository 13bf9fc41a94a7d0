"""The partitions that a group gives to a member: the common part of the rebalance listeners of worker and reader.

The whole group waits for the rebalance callbacks, so they do little: no heartbeat is sent while ``assigned`` runs, and
the other members wait while ``revoked`` runs. New partitions are paused. A task finds the position of each, and
fetching begins there. Giving partitions up takes a bounded time.
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
        """The next offset to fetch; None until the position is known."""
        self.gap: tuple[int, int] | None = None
        """(expected, first offset fetched) of a gap that was seen once."""

    def follows_on(self, first: int, expected: int) -> bool:
        """Whether to take a chunk that begins at ``first``.

        A gap in front of a chunk may come from a fetch that a rebalance overtook. Only a gap that is seen twice is in
        the log. If the answer is no, seek the partition to ``expected`` again.
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
        """A task failed with ``error``, and trying again would not help."""

    def _beside(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run ``work`` as a task, outside of the callback."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._broken(error)

    def _fetch_from(self, positions: Mapping[TopicPartition, int]) -> None:
        """Resume paused partitions at ``positions``."""
        for name, position in positions.items():
            self._consumer.seek(name, position)
        self._consumer.resume(positions)

    async def _released(self, release: Coroutine[Any, Any, None], limit_s: float, late: str) -> None:
        """Wait for ``release``, at most ``limit_s`` seconds. A failure is logged; a time-out is logged as ``late``."""
        try:
            async with asyncio.timeout(limit_s):
                await release
        except (KafkaError, TimeoutError) as error:
            event("release.failed", level="warning", error=str(error) or late)

    def _cease(self) -> None:
        """Start no further task."""
        self._stopped = True
        for task in self._tasks:
            task.cancel()
