"""A real Kafka cluster, reached by aiokafka."""

from __future__ import annotations

from contextlib import AbstractContextManager

from headrace.kafka.aio.admin import AioAdmin
from headrace.kafka.aio.chatter import calmed
from headrace.kafka.aio.connecting import why_unreachable
from headrace.kafka.aio.consumer import AioConsumer
from headrace.kafka.aio.producer import AioProducer
from headrace.kafka.settings import KafkaSettings


class AioKafkaCluster:
    """Fulfils :class:`headrace.kafka.interface.Cluster`. Clients are made inside a running event loop."""

    def __init__(self, settings: KafkaSettings) -> None:
        self.settings = settings

    @property
    def bootstrap(self) -> str:
        return self.settings.bootstrap

    async def why_away(self) -> str | None:
        reason = await why_unreachable(self.settings)
        return None if reason is None else str(reason)

    def calmed(self) -> AbstractContextManager[None]:
        return calmed()

    def consumer(
        self, *, group: str | None = None, member: str | None = None, read_committed: bool = False
    ) -> AioConsumer:
        return AioConsumer(self.settings, group=group, member=member, read_committed=read_committed)

    def producer(self) -> AioProducer:
        return AioProducer(self.settings)

    def admin(self) -> AioAdmin:
        return AioAdmin(self.settings)
