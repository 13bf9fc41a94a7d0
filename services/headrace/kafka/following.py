"""Follow a topic without end, by a consumer that belongs to no group and commits nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from headrace.core.clock import Clock
from headrace.kafka.interface import Cluster, Consumer, KafkaError, OffsetOutOfRangeError, Record, TopicPartition
from headrace.kafka.retry import RETRY_S, started
from headrace.process.logs import event

CHUNK = 2000
FETCH_S = 0.5
LOOK_S = 30.0

Take = Callable[[Mapping[TopicPartition, Sequence[Record]]], Awaitable[None]]
"""Takes what came since the last time, which may be nothing."""


async def follow(cluster: Cluster, topic: str, take: Take, *, from_end: bool, doing: str, clock: Clock) -> None:
    """Hand every record of ``topic`` to ``take`` until cancelled, from the topic's beginning or its present end.

    It waits for a topic that is not there. It begins again where retention overtook it, or the topic was made anew.
    ``doing`` names the purpose in events. Raises KafkaErrors that can't be mended here, and what ``take`` raises.
    """
    consumer = await started(cluster.consumer, doing=doing, clock=clock)
    followed = False
    try:
        while True:
            try:
                if not followed and not (followed := await _seek(consumer, topic, from_end=from_end)):
                    await clock.sleep(LOOK_S)
                    continue
                chunks = await consumer.fetch(max_records=CHUNK, timeout_s=FETCH_S)
            except OffsetOutOfRangeError:
                followed = False
                continue
            except KafkaError as error:
                if not error.retriable:
                    raise
                event("topic.waits", level="debug", topic=topic, doing=doing, error=str(error))
                await clock.sleep(RETRY_S)
                continue
            await take(chunks)
    finally:
        await consumer.stop()


async def _seek(consumer: Consumer, topic: str, *, from_end: bool) -> bool:
    """Assign all partitions of the topic. Returns whether the topic is there."""
    names = [TopicPartition(topic, number) for number in sorted(await consumer.partitions_of(topic))]
    if names:
        starts = await (consumer.end_offsets if from_end else consumer.beginning_offsets)(names)
        consumer.assign(names)
        for name in names:
            consumer.seek(name, starts[name])
    return bool(names)
