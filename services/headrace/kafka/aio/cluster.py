"""A real Kafka cluster, reached by aiokafka, and a filter for what aiokafka logs.

aiokafka logs as an error whatever it will try again by itself: a broker that is away, a coordinator that is being
chosen, a topic that is being made. Nobody has to act on those lines: ``kafka/reach.py`` logs one line when the trouble
lasts, and what a retry can't mend is raised as well. So they become debug lines. All others are warnings, each once in
a while.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from headrace.kafka.aio.admin import AioAdmin
from headrace.kafka.aio.connection import why_unreachable
from headrace.kafka.aio.consumer import AioConsumer
from headrace.kafka.aio.producer import AioProducer
from headrace.kafka.settings import KafkaSettings
from headrace.process.logs import RepeatFilter

# How such messages begin, each looked at in aiokafka 0.14: what follows there is another try, or the same as an error.
TRIED_AGAIN = (
    "Unable connect to",
    "Unable to request metadata",
    "Unable to update metadata",
    "No broker metadata found",
    "Topic %s is not available during auto-create",
    "Topic %s not found in cluster metadata",
    "Error fetching metadata for topic",
    "Error sending %s to node",
    "LeaveGroup request failed",
    "OffsetCommit failed",
    "OffsetFetchRequest -- unknown topic",
    "Failed to commit on finallization",
    "Marking the coordinator dead",
    "Group Coordinator Request failed",
    "FindCoordinator Request failed",
    "Heartbeat ",
    "Failed fetch ",
    "Unexpected error while fetching data",
    "Received unknown topic or partition error",
    "Attempt to fetch offsets for partition",
    "Cannot send %r to",
    "Could not send %r",
    "Got error produce response",
)


class _Calm(RepeatFilter):
    """Makes messages of what is tried again debug ones, and holds back the others that repeat themselves."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info or not str(record.msg).startswith(TRIED_AGAIN):
            return super().filter(record)
        record.levelno, record.levelname = logging.DEBUG, "DEBUG"
        return logging.getLogger(record.name).isEnabledFor(logging.DEBUG)


@contextmanager
def calmed() -> Iterator[None]:
    """Filter what aiokafka logs while the block runs, for this process. May be entered several times at once."""
    calm = _Calm()
    # A logger's filter does not see what the loggers below it log.
    names = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] == "aiokafka"]
    loggers = [logging.getLogger(name) for name in ("aiokafka", *names)]
    for logger in loggers:
        logger.addFilter(calm)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(calm)


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
