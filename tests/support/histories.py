"""What a run over the twin left behind, as the checker of the chaos runs takes it."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping

import numpy as np

from headrace.core.answer_log import PartitionReader
from headrace.kafka.interface import TopicPartition
from headrace_load.measure.audit import ANSWERED, SENT, STATUSES
from headrace_schemas.codec import decode_result
from load.chaos.checker import LOGGED, LOST, REQUEST, History
from tests.support.memory_kafka import MemoryCluster


def history_of(
    cluster: MemoryCluster,
    *,
    requests: str,
    results: str,
    partitions: Collection[int],
    acknowledged: Mapping[tuple[int, int], bytes],
) -> History:
    """``acknowledged`` are the values of requests by (partition, offset), as their producer was told."""
    sent = np.zeros(len(acknowledged), SENT)
    for row, ((partition, offset), value) in zip(sent, acknowledged.items(), strict=True):
        row["partition"], row["offset"], row["crc"] = partition, offset, zlib.crc32(value)
    asked, logged, seen, lost = [], [], [], []
    for partition in partitions:
        asked += [
            (partition, record.offset, zlib.crc32(record.value or b""), record.timestamp * 1000)
            for record in cluster.log(TopicPartition(requests, partition)).records
        ]
        reader = PartitionReader(-1)
        for record in cluster.log(TopicPartition(results, partition)).records:
            answer = decode_result(record.value)
            status, appended_us = STATUSES.index(answer.status), record.timestamp * 1000
            digest = zlib.crc32(record.value or b"")
            logged.append(
                (partition, record.offset, answer.offset, answer.after, answer.crc, status, digest, appended_us)
            )
            if answer.lost is not None:
                lost.append((partition, answer.lost.first, answer.lost.last))
            reading = reader.read(answer.offset, answer.after)
            if reading.accepted:
                hole = reading.hole is not None
                seen.append(
                    (-1, partition, answer.offset, record.offset, answer.crc, status, hole, appended_us, appended_us)
                )
    return History(
        sent=sent,
        requests=np.array(asked, REQUEST),
        log=np.array(logged, LOGGED),
        seen=np.array(seen, ANSWERED),
        said=np.array(lost, LOST),
        began_us=0,
    )
