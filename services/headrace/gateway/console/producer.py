"""The one producer of the console: it connects at the first write, and again after it died."""

from __future__ import annotations

import asyncio

from headrace.kafka.interface import Cluster, Producer


class OpenProducer:
    """Connects late: somebody who only looks needs no producer, and no right to write."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._producer: Producer | None = None
        self._lock = asyncio.Lock()

    async def get(self) -> Producer:
        """A producer that is connected. Raises a KafkaError."""
        async with self._lock:
            if self._producer is not None and self._producer.dead:
                dead, self._producer = self._producer, None
                await dead.stop()
            if self._producer is None:
                producer = self._cluster.producer()
                try:
                    await producer.start()
                except BaseException:
                    await producer.stop()
                    raise
                self._producer = producer
            return self._producer

    async def stop(self) -> None:
        async with self._lock:
            if self._producer is not None:
                await self._producer.stop()
                self._producer = None
