"""Batches of records written byte by byte, as no Kafka client writes them, and sent as they are."""

from __future__ import annotations

import struct
import time
from collections.abc import Sequence

from aiokafka import AIOKafkaProducer
from aiokafka.codec import gzip_encode, lz4_encode, snappy_encode, zstd_encode
from aiokafka.record.util import calc_crc32c

from headrace.kafka.interface import Outgoing
from headrace.kafka.packed_records import PackedBatch, PackedRecords

GZIP, SNAPPY, LZ4, ZSTD = CODECS = (1, 2, 3, 4)
_HEAD = struct.Struct(">hiqqqhii")

RawHeaders = Sequence[tuple[bytes, bytes | None]]


def raw_record(delta: int, value: bytes | None, *, key: bytes | None = None, headers: RawHeaders = ()) -> bytes:
    """One record of format 2; header names are any bytes."""
    parts = [b"\0", _varint(0), _varint(delta), _sized(key), _sized(value), _varint(len(headers))]
    parts += [_sized(part) for header in headers for part in header]
    body = b"".join(parts)
    return _varint(len(body)) + body


def raw_batch(records: Sequence[bytes], *, codec: int = 0) -> bytes:
    """A batch of what raw_record made, as it is or compressed by one of CODECS."""
    body, count = b"".join(records), len(records)
    body = packed(body, codec)
    now_ms = time.time_ns() // 1_000_000
    rest = _HEAD.pack(codec, count - 1, now_ms, now_ms, -1, -1, -1, count) + body
    # Length, epoch of the leader, format and checksum; the length counts what stands behind it.
    return struct.pack(">qiibI", 0, len(rest) + 9, -1, 2, calc_crc32c(rest)) + rest


def packed_records(records: Sequence[Outgoing], batch_bytes: int = 1 << 19) -> PackedRecords:
    """``records`` packed into batches of at most ``batch_bytes``; a larger record has a batch of its own."""
    batches: list[list[bytes]] = [[]]
    for record in records:
        headers = [(name.encode(), value) for name, value in record.headers]
        packed = raw_record(len(batches[-1]), record.value, key=record.key, headers=headers)
        if batches[-1] and sum(map(len, batches[-1])) + len(packed) > batch_bytes:
            batches.append([])
            packed = raw_record(0, record.value, key=record.key, headers=headers)
        batches[-1].append(packed)
    return PackedRecords([PackedBatch(b"".join(batch), len(batch)) for batch in batches])


def packed(body: bytes, codec: int) -> bytes:
    """``body`` as Kafka's clients compress it."""
    if codec == GZIP:
        return gzip_encode(body)
    if codec == SNAPPY:
        return snappy_encode(body)
    if codec == LZ4:
        return lz4_encode(body)
    if codec == ZSTD:
        return zstd_encode(body)
    return body


async def send_raw(bootstrap: str, topic: str, partition: int, batch: bytes, count: int) -> int:
    """Send a batch as it is and return the offset of its first record."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", max_request_size=4 << 20)
    async with producer:
        carrier = producer.create_batch()
        carrier._buffer, carrier._relative_offset = bytearray(batch), count
        carrier.close()
        sent = await producer.send_batch(carrier, topic, partition=partition)
        return int((await sent).offset)


def _sized(part: bytes | None) -> bytes:
    return _varint(-1) if part is None else _varint(len(part)) + part


def _varint(value: int) -> bytes:
    value = (value << 1) ^ (value >> 63)
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
