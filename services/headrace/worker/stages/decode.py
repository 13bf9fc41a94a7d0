"""Decode: the headers of a record when it is fetched, its value when it is in a batch and has not expired."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import msgspec

from headrace.core.clock import believable
from headrace.kafka.interface import Discarded, FetchedRecord, Record, crc_of, size_of
from headrace.worker.partitions.partition import Request
from headrace.worker.stages.batch import Slice
from headrace_schemas.errors import BadHeaderError, RequestTooLargeError, WireError, place
from headrace_schemas.headers import JSON, content_type, read_explain, read_timeout_ms
from headrace_schemas.records import ClassifyRequest
from headrace_schemas.topics import MAX_REQUEST_BYTES

DecodeValue = Callable[[bytes | None, str], ClassifyRequest]
"""(value, content type) to request; raises WireError."""


class Failure(msgspec.Struct, frozen=True):
    """Why a request is answered ``failed``: the stage, a code that never changes, and a message for people."""

    stage: str
    code: str
    message: str


KILLS_PROCESS = Failure("infer", "kills-process", "processes died over this record, in a batch and alone")


MOST_BESIDE = 64 * 1024
"""Most bytes of key and headers that are kept of a record whose value is not kept."""

EXPIRED = -1
FAILED = -2
"""In place of the index of a request's text."""


class Column(msgspec.Struct, frozen=True):
    """For each request of a slice the index of its text, EXPIRED or FAILED; and the failures by place in the slice."""

    texts: list[int]
    failures: dict[int, Failure]


class Decoded(msgspec.Struct, frozen=True):
    """The texts of a batch in UTF-8 with their ids, and a column for each slice.

    ``explained`` has the indexes of the texts whose requests ask why they get their labels.
    """

    texts: list[bytes]
    ids: list[str | None]
    columns: list[Column]
    explained: list[int]


# Most requests of a topic have the same headers. The caches are small: headers may be large.
_timeout_ms = lru_cache(maxsize=64)(read_timeout_ms)
_content_type = lru_cache(maxsize=64)(content_type)
_explain = lru_cache(maxsize=64)(read_explain)


def admit(record: Record, came_s: float, now_ms: int) -> Request:
    """Make a request of ``record``: read when it expires. :func:`decode` answers a bad header.

    The time-out counts from the record's timestamp, or from the fetch at ``now_ms`` if the timestamp is not believable.

    A compressed record may be larger than a request is allowed to be. No dead letter could repeat it, and a queue of
    such records would fill the memory, so its value is not kept, nor its key and headers beyond MOST_BESIDE bytes.
    """
    size = size_of(record)
    if record.discarded is not None or size > MAX_REQUEST_BYTES:
        return _without_value(record, came_s, size)
    if not record.headers:
        return Request(record, came_s, size)
    try:
        timeout_ms = _timeout_ms(tuple(record.headers))
    except BadHeaderError:
        return Request(record, came_s, size)
    if timeout_ms is None:
        return Request(record, came_s, size)
    earliest, latest = believable(now_ms)
    begun_ms = record.timestamp if earliest <= record.timestamp <= latest else now_ms
    return Request(record, came_s, size, begun_ms + timeout_ms)


def _without_value(record: Record, came_s: float, size: int) -> Request:
    said = record.discarded or Discarded(size, crc_of(record))
    place = (record.topic, record.partition, record.offset, record.timestamp)
    kept = FetchedRecord(*place, record.key, b"", record.headers, said)
    if (size := size_of(kept)) > MOST_BESIDE:
        kept, size = FetchedRecord(*place, None, b"", (), said), 0
    return Request(kept, came_s, size)


def decode(slices: Sequence[Slice], ready_ms: float, decode_value: DecodeValue) -> Decoded:
    """Decode the requests that have not expired by ``ready_ms`` (milliseconds since the Unix epoch)."""
    texts: list[bytes] = []
    ids: list[str | None] = []
    columns: list[Column] = []
    explained: list[int] = []
    for piece in slices:
        column = Column([], {})
        for request in piece.requests:
            record = request.record
            if request.late(ready_ms):
                column.texts.append(EXPIRED)
                continue
            if record.offset == piece.condemned:
                column.failures[len(column.texts)] = KILLS_PROCESS
                column.texts.append(FAILED)
                continue
            try:
                decoded = _decode_one(request, decode_value)
                if record.headers and _explain(tuple(record.headers)):
                    explained.append(len(texts))
            except WireError as error:
                where = place(record.topic, record.partition, record.offset)
                column.failures[len(column.texts)] = Failure("decode", error.code, f"{where}: {error}")
                column.texts.append(FAILED)
                continue
            column.texts.append(len(texts))
            texts.append(decoded.text.encode())
            ids.append(decoded.id)
        columns.append(column)
    return Decoded(texts, ids, columns, explained)


def _decode_one(request: Request, decode_value: DecodeValue) -> ClassifyRequest:
    record = request.record
    if record.discarded is not None:
        size = f"has {record.discarded.size} bytes, at most {MAX_REQUEST_BYTES} are allowed; its value is not kept"
        raise RequestTooLargeError("record", size)
    headers = tuple(record.headers)
    if not headers:
        return decode_value(record.value, JSON)
    _timeout_ms(headers)
    return decode_value(record.value, _content_type(headers))
