"""Requests that are on a topic already: its last texts, and its records as they come.

Both read by an aiokafka consumer that is started, without a group and without automatic commits.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from headrace_load.waiting import within
from headrace_load.workload.rubbish import judge
from headrace_load.workload.spec import TopicTexts, WorkloadError
from headrace_schemas.records import ClassifyRequest

PATIENCE_S = 30.0
"""Longest wait for records that the log holds."""

_POLL_MS = 200


async def topic_texts(consumer: AIOKafkaConsumer, texts: TopicTexts) -> list[str]:
    """Return the texts of the topic's last records, those that can't be read left out.

    Raises WorkloadError when there is none, and for a topic that does not exist; TimeoutError when the log's records
    do not come.
    """
    partitions = await _assigned(consumer, texts.topic)
    ends = await _at_its_ends(consumer, partitions)
    firsts = await consumer.beginning_offsets(partitions)
    share = -(-texts.most // len(partitions))
    for partition in partitions:
        consumer.seek(partition, max(firsts[partition], ends[partition] - share))
    found: list[str] = []
    while partitions := [p for p in partitions if await consumer.position(p) < ends[p]]:
        async with within(PATIENCE_S, f"the coming of the last records of {texts.topic}"):
            while not (records := await consumer.getmany(*partitions, timeout_ms=_POLL_MS)):
                pass
            found += [
                request.text
                for partition, part in records.items()
                for record in part
                if record.offset < ends[partition]
                and isinstance(request := judge(record.value, record.headers), ClassifyRequest)
                and request.text
            ]
    if not found:
        raise WorkloadError(f"{texts.topic}: its last {texts.most} records hold no text; publish some, or take others")
    return found[: texts.most]


async def followed(consumer: AIOKafkaConsumer, topic: str) -> AsyncGenerator[list[ConsumerRecord], None]:
    """Yield the records that come to ``topic`` from now on, and an empty list about five times a second when none does.

    The first list comes when the consumer has taken its place. Raises WorkloadError for a topic that does not exist.
    """
    partitions = await _assigned(consumer, topic)
    await _at_its_ends(consumer, partitions)
    yield []
    while True:
        records = await consumer.getmany(timeout_ms=_POLL_MS)
        yield [record for part in records.values() for record in part]


async def _assigned(consumer: AIOKafkaConsumer, topic: str) -> list[TopicPartition]:
    known = await consumer.topics()  # asks for all of them, so none is made by the asking
    if topic not in known:
        raise WorkloadError(f"{topic}: there is no such topic on this cluster")
    # aiokafka knows the partitions of a topic that it is assigned to, once it had to ask for something of it.
    one = [TopicPartition(topic, 0)]
    consumer.assign(one)
    await consumer.end_offsets(one)
    partitions = [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic))]
    consumer.assign(partitions)
    return partitions


async def _at_its_ends(consumer: AIOKafkaConsumer, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
    """Place ``consumer`` where the log ends now, as a fetch says: the embedded broker lists an end that is too low."""
    for partition, end in (await consumer.end_offsets(partitions)).items():
        consumer.seek(partition, end)
    async with within(PATIENCE_S, "the first fetch of each partition"):
        while None in (ends := {partition: consumer.highwater(partition) for partition in partitions}).values():
            await consumer.getmany(timeout_ms=_POLL_MS)
    return ends
