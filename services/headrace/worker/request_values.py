"""Kernels that read plain requests: their headers, and where the text and the id are in their values.

What they read, they read as :mod:`headrace_schemas` does. A request is odd if a kernel can't tell: an escaped key, an
id with escapes, a place of a list in a path, a fault. Odd requests are decoded one by one by that package, which also
tells what is wrong with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.core.clock import believable
from headrace.kafka import columns
from headrace.kafka.columns import Columns
from headrace.kafka.interface import FetchedRecord
from headrace.model.compiling import kernel
from headrace.model.utf8 import is_utf8
from headrace.model.words import Texts
from headrace.worker.partitions import partition
from headrace.worker.partitions.partition import NEVER, Requests
from headrace.worker.request_json import in_json
from headrace.worker.request_msgpack import in_msgpack
from headrace.worker.request_paths import ABSENT, DEEPEST, TORN, KeyPaths, key_paths, same
from headrace_schemas.codec import MAX_ID_BYTES
from headrace_schemas.errors import UnknownContentTypeError
from headrace_schemas.headers import (
    CONTENT_TYPE,
    EXPLAIN,
    JSON,
    MAX_TIMEOUT_MS,
    MSGPACK,
    TEXT,
    TIMEOUT_MS,
    content_type,
)
from headrace_schemas.paths import Decode, RequestShape, compile_shape, parse_path

ODD: Final = 0
"""The form of a request that no kernel reads."""
IN_JSON: Final = 1
IN_MSGPACK: Final = 2
BARE: Final = 3
_FORMS: Final = {JSON: IN_JSON, MSGPACK: IN_MSGPACK, TEXT: BARE}

EXPIRED: Final = -1
FAILED: Final = -2
UNREAD: Final = -3
"""In place of the index of a request's text; the last until it is decoded."""

CONDEMNED: Final = 0
NULL: Final = 1
TEXTLESS: Final = 2
"""Why a kernel lets a request fail: processes died over it, it has no value, or JSON without a text."""


class ValueReader(msgspec.Struct, frozen=True, eq=False):
    """Reads values of one shape: ``decode`` any value, kernels the plain ones, along ``paths``.

    ``whole_ids`` says whether a whole number is an id, ``limit`` is of a text's bytes.
    """

    decode: Decode
    paths: KeyPaths
    whole_ids: bool
    limit: int


def value_reader(shape: RequestShape) -> ValueReader:
    """The reader of requests of ``shape``. Raises ValueError as :func:`~headrace_schemas.paths.compile_shape` does."""
    decode = compile_shape(shape)
    paths = key_paths(parse_path(shape.text_path), parse_path(shape.id_path))
    ours = RequestShape()
    whole_ids = (shape.text_path, shape.id_path) != (ours.text_path, ours.id_path)
    return ValueReader(decode, paths, whole_ids, shape.max_text_bytes)


def read_headers(records: Columns, now_ms: int, expires_ms: NDArray[np.int64], forms: NDArray[np.int64]) -> None:
    """Write when each record that was fetched at ``now_ms`` expires, or NEVER, and its form: both int64[n].

    A time-out counts from the record's timestamp, or from the fetch if the timestamp is not believable. A record is odd
    if one of its headers needs more than a look: an unreadable time-out, which counts as none; an unknown content type;
    a wish for an explanation.
    """
    earliest, latest = believable(now_ms)
    types = np.empty((_MOST_TYPES, 2), np.int64)
    count = _read_headers(
        records.data,
        records.header_starts,
        records.header_lengths,
        _NAMES,
        _NAME_ENDS,
        records.timestamps,
        now_ms,
        earliest,
        latest,
        expires_ms,
        forms,
        types,
    )
    if count:
        named = [records.data[begin : begin + length].tobytes() for begin, length in types[:count].tolist()]
        forms[:] = np.array([ODD, IN_JSON, *map(_form, named)], np.int64)[forms]


class Found:
    """Texts of a batch, found one after the other, with room for ``most`` of at most ``size`` bytes together."""

    def __init__(self, most: int, size: int) -> None:
        self.data = np.empty(size, np.uint8)
        self.ends = np.zeros(most + 1, np.int64)
        self.count = 0

    def texts(self, more: Sequence[bytes]) -> Texts:
        """All that were found, and ``more`` behind them."""
        ends = self.ends[: self.count + 1]
        data = self.data[: ends[-1]]
        if more:
            ends = np.concatenate((ends, ends[-1] + np.cumsum([len(text) for text in more])))
            data = np.concatenate((data, np.frombuffer(b"".join(more), np.uint8)))
        return Texts(data, ends)


def find_texts(
    reader: ValueReader, requests: Requests, ready_ms: float, condemned: int | None, found: Found
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int64], int, int]:
    """Append to ``found`` the texts of the plain ones among ``requests``.

    Returns for each request the index of its text, EXPIRED before ``ready_ms``, FAILED, or UNREAD if it is odd,
    int64[n]; why it failed, which is CONDEMNED for the one at the offset ``condemned``, -1 for all that did not,
    int32[n]; where in the records' data its id begins and how long it is, -1 for none, int64[2, n]; how many FAILED and
    how many are UNREAD. JSON writes the bytes of these ids as they are.
    """
    records = requests.records
    places = np.empty(len(requests), np.int64)
    faults = np.empty(len(requests), np.int32)
    ids = np.empty((2, len(requests)), np.int64)
    found.count, failed, unread = _find_texts(
        records.data,
        records.value_starts,
        records.value_lengths,
        records.offsets,
        requests.expires_ms,
        requests.forms,
        float(ready_ms),
        -1 if condemned is None else condemned,
        reader.paths.keys,
        reader.paths.ends,
        reader.paths.text_parts,
        reader.whole_ids,
        reader.limit,
        found.data,
        found.ends,
        found.count,
        places,
        faults,
        ids,
    )
    return places, faults, ids, failed, unread


def warm() -> None:
    """Load the kernels of requests from numba's cache, or compile them. Without it the first fetch would wait."""
    columns.warm()
    partition.warm()
    records = Columns.of([FetchedRecord("", 0, 0, 0, None, b"", ((TIMEOUT_MS, b"1"),))])
    requests = Requests(records, np.zeros((3, 1), np.int64))
    read_headers(records, 0, requests.expires_ms, requests.forms)
    find_texts(value_reader(RequestShape()), requests, 0.0, None, Found(1, 0))


@lru_cache(maxsize=64)
def _form(value: bytes) -> int:
    try:
        return _FORMS[content_type(((CONTENT_TYPE, value),))]
    except UnknownContentTypeError:
        return ODD


_MOST_TYPES = 8
"""Most different content types of a chunk that are looked up; a record with another one is odd."""
_HEADERS = (CONTENT_TYPE.encode(), TIMEOUT_MS.encode(), EXPLAIN.encode())
_NAMES = np.frombuffer(b"".join(_HEADERS), np.uint8)
_NAME_ENDS = np.cumsum([0, *map(len, _HEADERS)])
_TYPE, _TIMEOUT, _EXPLAIN = range(len(_HEADERS))
_KIND_ODD, _KIND_JSON, _KIND_TYPES = 0, 1, 2
_MOST_DIGITS = len(str(MAX_TIMEOUT_MS))
_ZERO, _NINE = ord("0"), ord("9")


@kernel
def _length(data, at):  # type: ignore[no-untyped-def]
    """A length in a checked span of headers, and where the next field begins."""
    value = np.int64(0)
    shift = 0
    while True:
        byte = np.int64(data[at])
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), at
        shift += 7


@kernel
def _timeout(data, at, length):  # type: ignore[no-untyped-def]
    """A time-out as ``read_timeout_ms`` reads it; -1 for a bad one."""
    if not 1 <= length <= _MOST_DIGITS:
        return np.int64(-1)
    value = np.int64(0)
    for i in range(at, at + length):
        if data[i] < _ZERO or data[i] > _NINE:
            return np.int64(-1)
        value = 10 * value + data[i] - _ZERO
    return value if 1 <= value <= MAX_TIMEOUT_MS else np.int64(-1)


@kernel
def _read_headers(  # type: ignore[no-untyped-def]  # noqa: C901, PLR0912, PLR0917
    data, starts, lengths, names, name_ends, stamps, now_ms, earliest, latest, expires_ms, kinds, types
):
    """Write ``expires_ms`` and ``kinds``: odd, JSON, or behind these the place in ``types`` of the content type, whose
    beginning and length stand there. Returns the number of types.
    """
    count = 0
    for i in range(len(kinds)):
        timeout = np.int64(0)
        expires_ms[i], kinds[i] = NEVER, _KIND_JSON
        at, end = starts[i], starts[i] + lengths[i]
        type_at, type_length = at, np.int64(-2)
        odd = False
        while at < end:
            length, name_at = _length(data, at)
            value_length, value_at = _length(data, name_at + length)
            at = value_at + max(value_length, 0)
            if same(data, name_at, length, names, name_ends[_TYPE], name_ends[_TYPE + 1]):
                type_at, type_length = value_at, value_length
            elif same(data, name_at, length, names, name_ends[_TIMEOUT], name_ends[_TIMEOUT + 1]):
                timeout = _timeout(data, value_at, value_length)
            elif same(data, name_at, length, names, name_ends[_EXPLAIN], name_ends[_EXPLAIN + 1]):
                odd = True
        if timeout > 0:
            expires_ms[i] = timeout + (stamps[i] if earliest <= stamps[i] <= latest else now_ms)
        if timeout < 0:
            odd = True
        if type_length >= -1:
            place = 0
            while place < count and not same(
                data, type_at, type_length, data, types[place, 0], types[place, 0] + types[place, 1]
            ):
                place += 1
            if place == len(types) or type_length < 0:
                odd = True
            else:
                if place == count:
                    types[count, 0], types[count, 1] = type_at, type_length
                    count += 1
                kinds[i] = _KIND_TYPES + place
        if odd:
            kinds[i] = _KIND_ODD
    return count


@kernel
def _find_texts(  # type: ignore[no-untyped-def]  # noqa: C901, PLR0917 - one loop
    data,
    starts,
    lengths,
    offsets,
    expires_ms,
    forms,
    ready_ms,
    condemned,
    keys,
    path_ends,
    text_parts,
    whole_ids,
    limit,
    out,
    ends,
    count,
    places,
    faults,
    ids,
):
    """Append to ``out`` and ``ends``, and write ``places``, ``faults`` and ``ids``. Returns how many texts are
    there, how many requests failed, and how many are unread.
    """
    failed = unread = 0
    left = np.empty((2, DEEPEST), np.int64)
    for i in range(len(forms)):
        ids[0, i], ids[1, i], faults[i] = 0, TORN, -1
        if expires_ms[i] < ready_ms:
            places[i] = EXPIRED
            continue
        if offsets[i] == condemned:
            places[i], faults[i] = FAILED, CONDEMNED
            failed += 1
            continue
        if lengths[i] < 0 and forms[i] != ODD:
            places[i], faults[i] = FAILED, NULL
            failed += 1
            continue
        to = ends[count]
        at, end = starts[i], starts[i] + lengths[i]
        written, id_at, id_length = np.int64(TORN), np.int64(TORN), np.int64(TORN)
        if lengths[i] >= 0 and forms[i] == IN_JSON and text_parts:
            written, id_at, id_length = in_json(data, at, end, keys, path_ends, text_parts, whole_ids, out, to)
        elif lengths[i] >= 0 and forms[i] == IN_MSGPACK and text_parts:
            written, id_at, id_length = in_msgpack(data, at, end, keys, path_ends, text_parts, out, to, left)
        elif lengths[i] >= 0 and forms[i] == BARE and is_utf8(data, at, end):
            for byte in range(at, end):
                out[to + byte - at] = data[byte]
            written = to + end - at
        if written == ABSENT:
            places[i], faults[i] = FAILED, TEXTLESS
            failed += 1
            continue
        if written < 0 or written - to > limit or id_length > MAX_ID_BYTES:
            places[i] = UNREAD
            unread += 1
            continue
        places[i], ids[0, i], ids[1, i] = count, id_at, id_length
        count += 1
        ends[count] = written
    return count, failed, unread
