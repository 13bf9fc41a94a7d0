"""The versions and aliases as the console shows them: one follower of the models topic, connected by its first use."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.gateway.console.open_log import OpenLog
from headrace.gateway.console.producer import OpenProducer
from headrace.kafka.interface import Cluster
from headrace.registry.compacted_topics import ModelsLog, ModelsWriter, alias_moves
from headrace_schemas.records import ModelAlias, ModelsRecord, ModelVersion

MOST_MOVES = 200


class ModelsView:
    """Reads and writes ``topic`` of ``cluster``. A follower or producer that failed is made anew at its next use."""

    def __init__(self, cluster: Cluster, topic: str, name: str, producer: OpenProducer) -> None:
        self._cluster = cluster
        self._topic = topic
        self.name = name
        self._open: OpenLog[ModelsLog] = OpenLog(lambda: ModelsLog(cluster, topic))
        self._producer = producer
        self._aliases: dict[tuple[str, str], ModelAlias] | None = None

    async def log(self) -> ModelsLog:
        """The topic, read to its present end. Raises a KafkaError."""
        return await self._open.get()

    async def following(self, alias: str) -> ModelVersion | None:
        """The version that ``alias`` points at. Raises a KafkaError."""
        return (await self.log()).resolve(self.name, alias)

    async def publish(self, records: Sequence[ModelsRecord]) -> None:
        """Append ``records`` and wait for the acknowledgement. Raises a KafkaError."""
        await ModelsWriter(await self._producer.get(), self._topic).publish(records)

    async def moves(self) -> list[ModelAlias]:
        """How aliases moved, oldest first, as far back as the topic reaches. Raises a KafkaError."""
        moves = await alias_moves(self._cluster, self._topic, self.name)
        return [one.alias for one in moves[-MOST_MOVES:]]

    async def moves_if_changed(self) -> list[ModelAlias] | None:
        """The same if an alias was moved since the last call, else None."""
        aliases = dict((await self.log()).aliases)
        if aliases == self._aliases:
            return None
        moves = await self.moves()
        self._aliases = aliases
        return moves

    async def stop(self) -> None:
        await self._open.stop()
