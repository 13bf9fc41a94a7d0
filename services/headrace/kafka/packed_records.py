"""Records that lie in Kafka's batch format 2 already: a producer adds the head of each batch and sends it.

Whoever packs records counts their offsets from 0 in each batch and gives them no time of their own: the producer's
clock stamps the batch when it is sent. https://kafka.apache.org/documentation/#messageformat
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import overload

from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.util import calc_crc32c

from headrace.kafka.interface import Headers, Outgoing

HEAD = struct.Struct(">qiibIhiqqqhii")
"""The head of a batch: offset, length behind it, leader's epoch, format, CRC-32C, attributes, last offset, first and
last time, producer's id and epoch, first sequence number, number of records.
"""


class _Records(Sequence[Outgoing]):
    """A sequence whose records are unpacked when one of them is looked at."""

    @cached_property
    def _unpacked(self) -> list[Outgoing]:
        raise NotImplementedError

    @overload
    def __getitem__(self, place: int) -> Outgoing: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Outgoing]: ...
    def __getitem__(self, place: int | slice) -> Outgoing | Sequence[Outgoing]:
        return self._unpacked[place]


class PackedBatch(_Records):
    """``count`` records in ``data``, which is a batch without its head. ``crc32c`` computes the head's checksum."""

    def __init__(self, data: bytes, count: int, crc32c: Callable[[bytes], int] = calc_crc32c) -> None:
        self.data = data
        self.crc32c = crc32c
        self._count = count

    def __len__(self) -> int:
        return self._count

    @cached_property
    def _unpacked(self) -> list[Outgoing]:
        head = HEAD.pack(0, HEAD.size - 12 + len(self.data), -1, 2, 0, 0, self._count - 1, 0, 0, -1, -1, 0, self._count)
        return [
            Outgoing(record.value, record.key, tuple(record.headers)) for record in DefaultRecordBatch(head + self.data)
        ]


class PackedRecords(_Records):
    """Records for one partition, in ``batches``."""

    def __init__(self, batches: Sequence[PackedBatch]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return sum(map(len, self.batches))

    @cached_property
    def _unpacked(self) -> list[Outgoing]:
        return [record for batch in self.batches for record in batch]


def packed_headers(headers: Headers) -> bytes:
    """``headers`` as they end a record."""
    return _varint(len(headers)) + header_fields(headers)


def header_fields(headers: Headers) -> bytes:
    """``headers`` as they lie behind their number."""
    return b"".join(_sized(part) for name, value in headers for part in (name.encode(), value))


def _sized(data: bytes | None) -> bytes:
    return _varint(-1) if data is None else _varint(len(data)) + data


def _varint(number: int) -> bytes:
    rest, out = (number << 1) ^ (number >> 63), bytearray()
    while rest > 0x7F:
        out.append(0x80 | (rest & 0x7F))
        rest >>= 7
    out.append(rest)
    return bytes(out)
