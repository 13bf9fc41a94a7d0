"""Decode: the headers of records when they are fetched, their values when they are in a batch and have not expired."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.kafka.columns import Columns
from headrace.kafka.interface import Discarded, FetchedRecord, Record, crc_of, size_of
from headrace.model.words import Texts
from headrace.worker.dead_letter_records import Failure, undecoded
from headrace.worker.partitions.partition import CAME_US, EXPIRES_MS, FORM, Requests, microseconds
from headrace.worker.request_values import (
    CONDEMNED,
    FAILED,
    NULL,
    ODD,
    TEXTLESS,
    UNREAD,
    Found,
    ValueReader,
    find_texts,
    read_headers,
)
from headrace.worker.stages.batch import Slice
from headrace_schemas.errors import RequestTooLargeError, WireError
from headrace_schemas.headers import JSON, Headers, content_type, read_explain, read_timeout_ms
from headrace_schemas.paths import Decode
from headrace_schemas.records import ClassifyRequest
from headrace_schemas.topics import MAX_REQUEST_BYTES

KILLS_PROCESS = Failure("infer", "kills-process", "processes died over this record, in a batch and alone")

MOST_BESIDE = 64 * 1024
"""Most bytes of key and headers that are kept of a record whose value is not kept."""


class Column(msgspec.Struct, frozen=True, eq=False):
    """For each request of a slice the index of its text, EXPIRED or FAILED, ``texts`` int64[n]; and which of
    ``failures`` it is, ``faults`` int32[n], -1 where it did not fail. There are ``failures`` only where one failed.

    Its id is ``id_data[ids[0, i]:][:ids[1, i]]`` (``id_data`` uint8, ``ids`` int64[2, n]), as JSON writes it between
    quotes. A request without an id has the length -1.
    """

    texts: NDArray[np.int64]
    faults: NDArray[np.int32]
    failures: Sequence[Failure]
    id_data: NDArray[np.uint8]
    ids: NDArray[np.int64]

    def id(self, place: int) -> str | None:
        """The id of the request at ``place``."""
        begin, length = self.ids[:, place].tolist()
        if length < 0:
            return None
        return msgspec.json.decode(b'"%b"' % self.id_data[begin : begin + length].tobytes(), type=str)


class Decoded(msgspec.Struct, frozen=True, eq=False):
    """The texts of a batch in UTF-8, and a column for each slice.

    ``explained`` has the indexes of the texts whose requests ask why they get their labels.
    """

    texts: Texts
    columns: list[Column]
    explained: list[int]


# Most requests of a topic have the same headers. The cache is small: headers may be large.
@lru_cache(maxsize=64)
def _headers(headers: Headers) -> tuple[str, bool] | Failure:
    """The content type and whether the request asks why, or what is wrong with the headers."""
    try:
        read_timeout_ms(headers)
        return content_type(headers), read_explain(headers)
    except WireError as error:
        return undecoded(error)


@lru_cache(maxsize=8)
def _failures(decode_value: Decode) -> dict[Failure, int]:
    """The failures that a kernel finds, by their numbers."""
    return {KILLS_PROCESS: CONDEMNED, _failure(decode_value, None): NULL, _failure(decode_value, b"{}"): TEXTLESS}


def _failure(decode_value: Decode, value: bytes | None) -> Failure:
    try:
        decode_value(value, JSON)
    except WireError as error:
        return undecoded(error)
    raise AssertionError("a value without a text was read")


def admit(records: Sequence[Record], came_s: float, now_ms: int) -> Requests:
    """Make requests of fetched ``records``: read when they expire. :func:`decode` answers a bad header.

    A time-out counts from the record's timestamp, or from the fetch at ``now_ms`` if the timestamp is not believable.

    A compressed record may be larger than a request is allowed to be. No dead letter could repeat it, and a queue of
    such records would fill the memory, so its value is not kept, nor its key and headers beyond MOST_BESIDE bytes.
    """
    columns = Columns.of(records)
    if columns.discarded or columns.sizes.max() > MAX_REQUEST_BYTES:
        columns = Columns.of([_kept(record) for record in columns])
    admitted = np.empty((3, len(columns)), np.int64)
    admitted[CAME_US] = microseconds(came_s)
    read_headers(columns, now_ms, admitted[EXPIRES_MS], admitted[FORM])
    for place in columns.discarded:
        admitted[FORM, place] = ODD
    return Requests(columns, admitted)


def _kept(record: Record) -> Record:
    """``record``, without its value if it is too large."""
    size = size_of(record)
    if record.discarded is None and size <= MAX_REQUEST_BYTES:
        return record
    said = record.discarded or Discarded(size, crc_of(record))
    place = (record.topic, record.partition, record.offset, record.timestamp)
    kept = FetchedRecord(*place, record.key, b"", record.headers, said)
    return kept if size_of(kept) <= MOST_BESIDE else FetchedRecord(*place, None, b"", (), said)


def decode(slices: Sequence[Slice], ready_ms: float, reader: ValueReader) -> Decoded:
    """Decode the requests that have not expired by ``ready_ms`` (milliseconds since the Unix epoch).

    Kernels find the texts of plain requests. Those of odd ones come behind all of these.
    """
    requests = [piece.requests for piece in slices]
    found = Found(sum(map(len, requests)), sum(int(one.records.sizes.sum()) for one in requests))
    columns = [_plain(piece, ready_ms, reader, found) for piece in slices]
    more: list[bytes] = []
    explained: list[int] = []
    read = [
        _odd(piece, column, reader.decode, found.count, more, explained) if unread else column
        for piece, (column, unread) in zip(slices, columns, strict=True)
    ]
    return Decoded(found.texts(more), read, explained)


def _plain(piece: Slice, ready_ms: float, reader: ValueReader, found: Found) -> tuple[Column, int]:
    """The column of a slice with the texts of its plain requests, and how many odd ones there are, which are UNREAD."""
    texts, faults, ids, failed, unread = find_texts(reader, piece.requests, ready_ms, piece.condemned, found)
    failures = tuple(_failures(reader.decode)) if failed else ()
    return Column(texts, faults, failures, piece.requests.records.data, ids), unread


def _odd(
    piece: Slice,
    column: Column,
    decode_value: Decode,
    count: int,
    more: list[bytes],
    explained: list[int],
) -> Column:
    """Decode the odd requests one by one. Their texts are appended to ``more``, of which the first has the
    index ``count``.
    """
    records = piece.requests.records
    numbers = _failures(decode_value).copy()
    ids: list[bytes] = []
    at = len(column.id_data)
    places = np.flatnonzero(column.texts == UNREAD)
    kinds, _ = records.header_kinds()
    heads: dict[int, tuple[str, bool] | Failure] = {}
    each = zip(places.tolist(), kinds[places].tolist(), records.values(places), strict=True)
    for place, kind, value in each:
        head = heads.get(kind)
        if head is None:
            head = heads[kind] = _headers(tuple(records.headers(place)))
        decoded, asks_why = _decode_one(records.discarded.get(place), head, value, decode_value)
        if isinstance(decoded, Failure):
            column.texts[place], column.faults[place] = FAILED, numbers.setdefault(decoded, len(numbers))
            continue
        column.texts[place] = count + len(more)
        if asks_why:
            explained.append(count + len(more))
        more.append(decoded.text.encode())
        if decoded.id is not None:
            ids.append(msgspec.json.encode(decoded.id)[1:-1])
            column.ids[:, place] = at, len(ids[-1])
            at += len(ids[-1])
    data = np.frombuffer(column.id_data.tobytes() + b"".join(ids), np.uint8) if ids else column.id_data
    failures = tuple(numbers) if column.faults.max() >= 0 else ()
    return Column(column.texts, column.faults, failures, data, column.ids)


def _decode_one(
    said: Discarded | None, head: tuple[str, bool] | Failure, value: bytes | None, decode_value: Decode
) -> tuple[ClassifyRequest | Failure, bool]:
    """The request, or what is wrong with it; and whether it asks why it gets its label."""
    if said is not None:
        size = f"has {said.size} bytes, at most {MAX_REQUEST_BYTES} are allowed; its value is not kept"
        return undecoded(RequestTooLargeError("record", size)), False
    if isinstance(head, Failure):
        return head, False
    kind, asks_why = head
    try:
        return decode_value(value, kind), asks_why
    except WireError as error:
        return undecoded(error), False
