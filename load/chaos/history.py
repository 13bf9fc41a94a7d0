"""What a run left behind, for the checker: what producers were told, both logs whole, and what a reader accepted."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Sequence

import numpy as np
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.structs import ConsumerRecord
from msgspec import Struct
from numpy.typing import NDArray

from headrace_load.measure.audit import STATUSES
from headrace_load.target import System
from headrace_schemas.codec import decode_result
from headrace_schemas.errors import WireError
from headrace_schemas.headers import content_type

REQUEST = np.dtype([("partition", np.int32), ("offset", np.int64), ("crc", np.uint32), ("appended_us", np.int64)])
"""A record of the requests log."""

LOGGED = np.dtype(
    [
        ("partition", np.int32),
        ("position", np.int64),  # of the answer
        ("offset", np.int64),  # of the request, as the answer says
        ("after", np.int64),
        ("crc", np.uint32),
        ("status", np.int8),  # index in STATUSES
        ("digest", np.uint32),  # CRC-32 of the answer's value: equal answers are the same bytes
        ("appended_us", np.int64),
    ]
)
"""An answer in the results log, repeats included."""

LOST = np.dtype([("partition", np.int32), ("first", np.int64), ("last", np.int64)])
"""A range of requests that an answer says is lost."""

FETCH_MS = 500
QUIET_FETCHES = 10


class History(Struct, frozen=True, kw_only=True):
    """``sent`` has rows of audit.SENT, ``requests`` of REQUEST, ``log`` of LOGGED in the order of the log, ``said``
    of LOST; ``seen`` has rows of audit.ANSWERED in the order in which the reader accepted them. ``began_us`` is
    when the fault began (microseconds since the Unix epoch), 0 without one.
    """

    sent: NDArray[np.void]
    requests: NDArray[np.void]
    log: NDArray[np.void]
    seen: NDArray[np.void]
    said: NDArray[np.void]
    began_us: int


async def read_requests(system: System) -> NDArray[np.void]:
    """Every record that the requests log holds now."""
    rows = [
        (record.partition, record.offset, zlib.crc32(record.value or b""), record.timestamp * 1000)
        async for record in _records(system, system.requests)
    ]
    return np.array(rows, REQUEST)


async def read_answers(system: System) -> tuple[NDArray[np.void], NDArray[np.void]]:
    """Every answer that the results log holds now, and what they say is lost. What is no answer is left out."""
    rows, lost = [], []
    async for record in _records(system, system.results):
        try:
            result = decode_result(record.value, content_type(tuple(record.headers)))
        except WireError:
            continue  # somebody else's record, which readers skip and say
        rows.append(
            (
                *(record.partition, record.offset, result.offset, result.after, result.crc),
                STATUSES.index(result.status),
                zlib.crc32(record.value or b""),
                record.timestamp * 1000,
            )
        )
        if result.lost is not None:
            lost.append((record.partition, result.lost.first, result.lost.last))
    return np.array(rows, LOGGED), np.array(lost, LOST)


def together(place: str, logs: Sequence[NDArray[np.void]]) -> NDArray[np.void]:
    """One log of what was read at several times; where two hold something at one ``place``, what was read first."""
    rows = np.concatenate(logs)
    _, first = np.unique(rows[["partition", place]], return_index=True)
    return rows[np.sort(first)] if len(logs) > 1 else rows


async def _records(system: System, topic: str) -> AsyncIterator[ConsumerRecord]:
    """Read from the beginning to the end as it is now, aborted records left out."""
    names = [TopicPartition(topic, number) for number in await _partitions(system, topic)]
    consumer = AIOKafkaConsumer(
        **system.client_options(),
        enable_auto_commit=False,
        auto_offset_reset="none",
        isolation_level="read_committed",
        fetch_max_wait_ms=100,
    )
    await consumer.start()
    try:
        begins, ends = await consumer.beginning_offsets(names), await consumer.end_offsets(names)
        consumer.assign(names)
        for name in names:
            consumer.seek(name, begins[name])
        quiet = 0
        while quiet < QUIET_FETCHES and any([await consumer.position(name) < ends[name] for name in names]):
            chunks = await consumer.getmany(timeout_ms=FETCH_MS)
            quiet = 0 if chunks else quiet + 1
            for chunk in chunks.values():
                for record in chunk:
                    yield record
    finally:
        await consumer.stop()


async def _partitions(system: System, topic: str) -> list[int]:
    admin = AIOKafkaAdminClient(**system.client_options())
    await admin.start()
    try:
        (found,) = await admin.describe_topics([topic])
    finally:
        await admin.close()
    return sorted(partition["partition"] for partition in found["partitions"])
