"""The end of a partition as a fetch sees it, and whether there is anything in front of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.structs import TopicPartition as TheirPartition

from headrace.kafka.aio.admin import topics_metadata
from headrace.kafka.interface import TopicPartition

WAIT_MS = 10  # with no bytes asked for Kafka does not wait, but the embedded broker answers nothing in no time
LOOK_MS = 500  # enough for what is there to be read; what is empty takes as long
FEW_BYTES = 1  # the records themselves are of no interest here


async def fetched_ends(
    client: AIOKafkaClient, at_least: Mapping[TopicPartition, int], *, read_committed: bool
) -> dict[TopicPartition, int]:
    """Return where each partition ends for a fetch, never lower than the offset given for it.

    That is the high watermark, or with ``read_committed`` the last stable offset. A partition without a leader keeps
    the offset given. Raises aiokafka's errors.
    """
    ends = dict(at_least)
    of_leader: defaultdict[int, defaultdict[str, list[tuple[int, int, int]]]] = defaultdict(lambda: defaultdict(list))
    for topic in await topics_metadata(client, sorted({partition.topic for partition in at_least})):
        for described in topic["partitions"]:
            partition = TopicPartition(topic["topic"], described["partition"])
            if partition in at_least and described["leader"] >= 0:
                asked = (partition.partition, at_least[partition], FEW_BYTES)
                of_leader[described["leader"]][partition.topic].append(asked)
    for leader, topics in of_leader.items():
        request = FetchRequest(WAIT_MS, 0, FEW_BYTES, int(read_committed), list(topics.items()))
        for name, partitions in (await client.send(leader, request)).topics:
            for number, error_code, high_watermark, last_stable_offset, *_ in partitions:
                if error_code == 0:
                    partition = TopicPartition(name, number)
                    end = last_stable_offset if read_committed else high_watermark
                    ends[partition] = max(ends[partition], end)
    return ends


async def holds_nothing(
    client: AIOKafkaClient, partition: TopicPartition, offset: int, end: int, *, read_committed: bool, max_bytes: int
) -> bool:
    """Whether the leader answers a fetch at ``offset`` with no bytes although its log reaches ``end``.

    A batch without records counts as something, for a consumer's position goes past it. Raises aiokafka's errors.
    """
    leader = client.cluster.leader_for_partition(TheirPartition(*partition))
    if leader is None or leader < 0:
        return False
    asked = [(partition.topic, [(partition.partition, offset, max_bytes)])]
    request = FetchRequest(LOOK_MS, 1, max_bytes, int(read_committed), asked)
    for _, partitions in (await client.send(leader, request)).topics:
        for _, error_code, high_watermark, last_stable_offset, *_, raw in partitions:
            reaches = last_stable_offset if read_committed else high_watermark
            return bool(error_code == 0 and reaches >= end and not raw)
    return False
