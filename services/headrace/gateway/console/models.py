"""The versions and aliases as the console shows them: one follower of the models topic, connected by its first use."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from headrace.gateway.console.producer import OpenProducer
from headrace.kafka.interface import Cluster, KafkaError
from headrace.registry.compacted_topics import ModelsLog, ModelsWriter, alias_moves
from headrace_schemas.records import ModelAlias, ModelsRecord

MOST_MOVES = 200


class ModelsView:
    """Reads and writes ``topic`` of ``cluster``. What fails is made anew at the next use."""

    def __init__(self, cluster: Cluster, topic: str, name: str, producer: OpenProducer) -> None:
        self._cluster = cluster
        self._topic = topic
        self.name = name
        self._log: ModelsLog | None = None
        self._producer = producer
        self._lock = asyncio.Lock()
        self._aliases: dict[tuple[str, str], ModelAlias] | None = None

    async def log(self) -> ModelsLog:
        """The topic, read to its present end. Raises a KafkaError."""
        async with self._lock:
            if self._log is None:
                log = ModelsLog(self._cluster, self._topic)
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
                log, self._log = self._log, None
                await log.stop()
                raise
            return self._log

    async def publish(self, records: Sequence[ModelsRecord]) -> None:
        """Append ``records`` and wait for the acknowledgement. Raises a KafkaError."""
        await ModelsWriter(await self._producer.get(), self._topic).publish(records)

    async def moves(self) -> list[ModelAlias]:
        """How aliases moved, oldest first, as far as the topic still tells. Raises a KafkaError."""
        moves = await alias_moves(self._cluster, self._topic, self.name)
        return [one.alias for one in moves[-MOST_MOVES:]]

    async def moves_if_changed(self) -> list[ModelAlias] | None:
        """The same, where an alias was moved since this was last asked; None where none was."""
        aliases = dict((await self.log()).aliases)
        if aliases == self._aliases:
            return None
        moves = await self.moves()
        self._aliases = aliases
        return moves

    async def stop(self) -> None:
        async with self._lock:
            if self._log is not None:
                await self._log.stop()
