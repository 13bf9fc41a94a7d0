"""Records that aiokafka can't unpack, read beside it.

Kafka takes any bytes as the name of a header, and aiokafka raises on one that is no UTF-8. A single such record would
stop every consumer of its partition for good.
"""

from __future__ import annotations

import struct

from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.util import decode_varint
from aiokafka.structs import TopicPartition as TheirPartition

from headrace.kafka.interface import FetchedRecord, TopicPartition

WAIT_MS = 10
_AHEAD = struct.Struct(">qi")  # a batch's first offset, and how many bytes follow


async def read_tolerantly(
    client: AIOKafkaClient, partition: TopicPartition, offset: int, *, read_committed: bool, max_bytes: int
) -> list[FetchedRecord]:
    """Return records from ``offset`` on, at least one unless the partition can't be read at this moment.

    A header's name that is no UTF-8 is shown with its bytes escaped. Raises aiokafka's errors.
    """
    leader = client.cluster.leader_for_partition(TheirPartition(*partition))
    if leader is None or leader < 0:
        return []
    asked = [(partition.topic, [(partition.partition, offset, max_bytes)])]
    request = FetchRequest(WAIT_MS, 1, max_bytes, int(read_committed), asked)
    for _, partitions in (await client.send(leader, request)).topics:
        for _, error_code, *_, raw in partitions:
            if error_code == 0:
                return unpacked(raw, partition, offset)
    return []


def unpacked(raw: bytes, partition: TopicPartition, offset: int) -> list[FetchedRecord]:
    """Unpack batches of format 2, without records below ``offset``.

    Whoever asks has come to ``offset`` by aiokafka, which leaves aborted batches out; so the first batch counts. It
    ends before the next one that belongs to a transaction, and before one that was cut off.
    """
    found: list[FetchedRecord] = []
    at = 0
    while at + _AHEAD.size <= len(raw):
        end = at + _AHEAD.size + _AHEAD.unpack_from(raw, at)[1]
        if end > len(raw):
            break
        batch = _Batch(bytearray(raw[at:end]), partition)
        if batch.is_control_batch or (batch.is_transactional and found):
            break
        found += [record for record in batch if record.offset >= offset]
        at = end
    return found


class _Batch(_DefaultRecordBatchPy):  # type: ignore[misc]  # aiokafka has no types
    """Reads a record as aiokafka does, all but the names of headers."""

    _pos: int

    def __init__(self, buffer: bytearray, partition: TopicPartition) -> None:
        super().__init__(buffer)
        self._partition = partition

    def _read_msg(self) -> FetchedRecord:
        length, start = decode_varint(self._buffer, self._pos)
        self._pos = start + 1  # one byte of attributes, of which none is in use
        since_first = self._number()
        offset = self.base_offset + self._number()
        key, value = self._bytes(), self._bytes()
        headers = tuple(
            ((self._bytes() or b"").decode("utf-8", "backslashreplace"), self._bytes()) for _ in range(self._number())
        )
        self._pos = start + length
        appended = self.timestamp_type == self.LOG_APPEND_TIME
        timestamp = self.max_timestamp if appended else self.first_timestamp + since_first
        return FetchedRecord(*self._partition, offset, timestamp, key, value, headers)

    def _number(self) -> int:
        number, self._pos = decode_varint(self._buffer, self._pos)
        return int(number)

    def _bytes(self) -> bytes | None:
        size = self._number()
        if size < 0:
            return None
        start = self._pos
        self._pos += size
        return bytes(self._buffer[start : self._pos])
