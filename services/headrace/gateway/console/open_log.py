"""A compacted topic as the console follows it: read from its first use on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from headrace.kafka.interface import KafkaError
from headrace.registry.compacted_topics import CompactedLog

L = TypeVar("L", bound=CompactedLog[Any])


class OpenLog(Generic[L]):
    """``make`` makes a follower that is not started. One that failed is made anew at the next use."""

    def __init__(self, make: Callable[[], L]) -> None:
        self._make = make
        self._log: L | None = None
        self._lock = asyncio.Lock()

    async def get(self) -> L:
        """The topic, read to its present end. Raises a KafkaError."""
        async with self._lock:
            if self._log is None:
                log = self._make()
                try:
                    await log.start()
                except BaseException:
                    await log.stop()
                    raise
                self._log = log
                return log
            try:
                await self._log.refresh()
            except KafkaError:
                failed, self._log = self._log, None
                await failed.stop()
                raise
            return self._log

    async def stop(self) -> None:
        async with self._lock:
            if self._log is not None:
                await self._log.stop()
