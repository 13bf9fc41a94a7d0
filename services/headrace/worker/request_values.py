"""Kernels that read plain requests: their headers, and where the text and the id are in their values.

What they read, they read as :mod:`headrace_schemas` does. A request is odd if a kernel can't tell: an escaped key, an
id with escapes, values inside values, a fault. Odd requests are decoded one by one by that package, which also tells
what is wrong with them.
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


class ValueReader(msgspec.Struct, frozen=True, eq=False):
    """Reads values of one shape: ``decode`` any value, kernels the plain ones.

    The kernels look for the keys ``text`` and ``id`` at the top of a value. Where the shape has longer paths both are
    empty, and each request in JSON or MessagePack is odd. ``limit`` is of a text's bytes.
    """

    decode: Decode
    text: NDArray[np.uint8]
    id: NDArray[np.uint8]
    limit: int


def value_reader(shape: RequestShape) -> ValueReader:
    """The reader of requests of ``shape``. Raises ValueError as :func:`~headrace_schemas.paths.compile_shape` does."""
    decode = compile_shape(shape)
    text, id_ = parse_path(shape.text_path), parse_path(shape.id_path)
    flat = len(text) == len(id_) == 1 and text != id_
    keys = (part[0].encode() if flat else b"" for part in (text, id_))
    text_key, id_key = (np.frombuffer(key, np.uint8) for key in keys)
    return ValueReader(decode, text_key, id_key, shape.max_text_bytes)


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
) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Append to ``found`` the texts of the plain ones among ``requests``.

    Returns for each request the index of its text, EXPIRED before ``ready_ms``, FAILED at the offset ``condemned``, or
    UNREAD if it is odd, int64[n]; where in the records' data its id begins and how long it is, -1 for none, int64[2,
    n]; and how many are UNREAD. JSON writes the bytes of these ids as they are.
    """
    records = requests.records
    places = np.empty(len(requests), np.int64)
    ids = np.empty((2, len(requests)), np.int64)
    found.count, unread = _find_texts(
        records.data,
        records.value_starts,
        records.value_lengths,
        records.offsets,
        requests.expires_ms,
        requests.forms,
        float(ready_ms),
        -1 if condemned is None else condemned,
        reader.text,
        reader.id,
        reader.limit,
        found.data,
        found.ends,
        found.count,
        places,
        ids,
    )
    return places, ids, unread


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
def _same(data, at, length, other, begin, end):  # type: ignore[no-untyped-def]
    """Whether ``data[at:at + length]`` is ``other[begin:end]``."""
    if length != end - begin:
        return False
    equal = True
    for i in range(length):
        equal = equal and data[at + i] == other[begin + i]
    return equal


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
            if _same(data, name_at, length, names, name_ends[_TYPE], name_ends[_TYPE + 1]):
                type_at, type_length = value_at, value_length
            elif _same(data, name_at, length, names, name_ends[_TIMEOUT], name_ends[_TIMEOUT + 1]):
                timeout = _timeout(data, value_at, value_length)
            elif _same(data, name_at, length, names, name_ends[_EXPLAIN], name_ends[_EXPLAIN + 1]):
                odd = True
        if timeout > 0:
            expires_ms[i] = timeout + (stamps[i] if earliest <= stamps[i] <= latest else now_ms)
        if timeout < 0:
            odd = True
        if type_length >= -1:
            place = 0
            while place < count and not _same(
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


_QUOTE, _BACKSLASH, _SPACE = 0x22, 0x5C, 0x20
_TORN = -1
"""Instead of a place: what stands there is not plain."""


@kernel
def _blanks(data, at, end):  # type: ignore[no-untyped-def]
    """Where JSON goes on behind white space."""
    while at < end and (data[at] == 0x20 or data[at] == 0x0A or data[at] == 0x0D or data[at] == 0x09):
        at += 1
    return at


@kernel
def _plain_string(data, at, end):  # type: ignore[no-untyped-def]
    """Where the JSON string that begins behind a quote at ``at`` ends; torn with an escape, a control character or no
    end.
    """
    wide = False
    begin = at
    while at < end:
        byte = data[at]
        if byte == _QUOTE:
            return at if not wide or is_utf8(data, begin, at) else np.int64(_TORN)
        if byte == _BACKSLASH or byte < _SPACE:
            break
        wide = wide or byte >= 0x80
        at += 1
    return np.int64(_TORN)


@kernel
def _hex(data, at, end):  # type: ignore[no-untyped-def]
    """The number of four hexadecimal digits, torn for others."""
    if at + 4 > end:
        return np.int64(_TORN)
    value = np.int64(0)
    for i in range(at, at + 4):
        digit = np.int64(data[i])
        if 0x30 <= digit <= 0x39:
            digit -= 0x30
        elif 0x41 <= digit <= 0x46:
            digit -= 0x37
        elif 0x61 <= digit <= 0x66:
            digit -= 0x57
        else:
            return np.int64(_TORN)
        value = (value << 4) | digit
    return value


@kernel
def _encode(code, out, at):  # type: ignore[no-untyped-def]
    """Write a code point in UTF-8."""
    if code < 0x80:
        out[at] = code
        return at + 1
    if code < 0x800:
        out[at] = 0xC0 | (code >> 6)
        out[at + 1] = 0x80 | (code & 0x3F)
        return at + 2
    if code < 0x10000:
        out[at] = 0xE0 | (code >> 12)
        out[at + 1] = 0x80 | ((code >> 6) & 0x3F)
        out[at + 2] = 0x80 | (code & 0x3F)
        return at + 3
    out[at] = 0xF0 | (code >> 18)
    out[at + 1] = 0x80 | ((code >> 12) & 0x3F)
    out[at + 2] = 0x80 | ((code >> 6) & 0x3F)
    out[at + 3] = 0x80 | (code & 0x3F)
    return at + 4


@kernel
def _escape(data, at, end, out, to):  # type: ignore[no-untyped-def]  # noqa: C901, PLR0911 - one test an escape
    """Write the character that the escape behind the backslash at ``at`` stands for. Returns where it ends, or torn,
    and where the text goes on.
    """
    at += 1
    if at >= end:
        return np.int64(_TORN), to
    letter = data[at]
    if letter == 0x75:  # u
        code = _hex(data, at + 1, end)
        at += 5
        if 0xD800 <= code < 0xDC00:
            if at + 2 > end or data[at] != _BACKSLASH or data[at + 1] != 0x75:
                return np.int64(_TORN), to
            low = _hex(data, at + 2, end)
            at += 6
            if not 0xDC00 <= low < 0xE000:
                return np.int64(_TORN), to
            code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00)
        elif code < 0 or 0xDC00 <= code < 0xE000:
            return np.int64(_TORN), to
        return at, _encode(code, out, to)
    if letter == 0x6E:  # n
        letter = np.uint8(0x0A)
    elif letter == 0x74:  # t
        letter = np.uint8(0x09)
    elif letter == 0x72:  # r
        letter = np.uint8(0x0D)
    elif letter == 0x62:  # b
        letter = np.uint8(0x08)
    elif letter == 0x66:  # f
        letter = np.uint8(0x0C)
    elif letter not in (_QUOTE, _BACKSLASH, 0x2F):
        return np.int64(_TORN), to
    out[to] = letter
    return at + 1, to + 1


@kernel
def _json_text(data, at, end, out, to):  # type: ignore[no-untyped-def]
    """Write the JSON string that begins behind a quote at ``at``. Returns where it ends, or torn, and the end of what
    was written.
    """
    begin = to
    wide = False
    i, stop, put, one = np.uint64(at), np.uint64(end), np.uint64(to), np.uint64(1)
    while i < stop:
        byte = data[i]
        if byte == _QUOTE:
            if wide and not is_utf8(out, begin, np.int64(put)):
                break
            return np.int64(i), np.int64(put)
        if byte == _BACKSLASH:
            after, written = _escape(data, np.int64(i), end, out, np.int64(put))
            if after < 0:
                break
            i, put = np.uint64(after), np.uint64(written)
            continue
        if byte < _SPACE:
            break
        wide = wide or byte >= 0x80
        out[put] = byte
        put += one
        i += one
    return np.int64(_TORN), begin


@kernel
def _word(data, at, end, word):  # type: ignore[no-untyped-def]
    """Where the bytes of ``word`` end, or torn."""
    if at + len(word) > end or not _same(data, at, len(word), word, 0, len(word)):
        return np.int64(_TORN)
    return at + len(word)


_NULL, _TRUE, _FALSE = (np.frombuffer(word, np.uint8) for word in (b"null", b"true", b"false"))
_SAFE_DIGITS = 15


@kernel
def _passed(data, at, end):  # type: ignore[no-untyped-def]  # noqa: PLR0911 - one a kind
    """Where a JSON value that nobody asks for ends; torn unless it is a plain string, a short whole number, true, false
    or null.
    """
    if at >= end:
        return np.int64(_TORN)
    first = data[at]
    if first == _QUOTE:
        close = _plain_string(data, at + 1, end)
        return close + 1 if close >= 0 else np.int64(_TORN)
    if first == 0x6E:
        return _word(data, at, end, _NULL)
    if first == 0x74:
        return _word(data, at, end, _TRUE)
    if first == 0x66:
        return _word(data, at, end, _FALSE)
    begin = at
    while at < end and at - begin <= _SAFE_DIGITS and _ZERO <= data[at] <= _NINE:
        at += 1
    digits = at - begin
    if not 1 <= digits <= _SAFE_DIGITS or (digits > 1 and first == _ZERO):
        return np.int64(_TORN)
    return at


@kernel
def _in_json(data, at, end, text, id_, out, to):  # type: ignore[no-untyped-def]  # noqa: C901, PLR0912 - one loop
    """Find the text and the id in a flat JSON object. Returns where the text ends in ``out``, or torn, and the id's
    beginning and length.
    """
    none = np.int64(_TORN)
    written, id_at, id_length = none, none, none
    has_id = False
    at = _blanks(data, at, end)
    if at >= end or data[at] != 0x7B:  # {
        return none, none, none
    at = _blanks(data, at + 1, end)
    while at < end and data[at] == _QUOTE:
        key = at + 1
        key_end = _plain_string(data, key, end)
        if key_end < 0:
            break
        at = _blanks(data, key_end + 1, end)
        if at >= end or data[at] != 0x3A:  # :
            break
        at = _blanks(data, at + 1, end)
        if _same(data, key, key_end - key, text, 0, len(text)):
            if at >= end or data[at] != _QUOTE or written >= 0:
                break
            at, written = _json_text(data, at + 1, end, out, to)
            if at < 0:
                break
            at += 1
        elif _same(data, key, key_end - key, id_, 0, len(id_)):
            if at >= end or has_id:
                break
            has_id = True
            if data[at] == _QUOTE:
                id_at = at + 1
                close = _plain_string(data, id_at, end)
                if close < 0:
                    break
                id_length, at = close - id_at, close + 1
            else:
                at = _word(data, at, end, _NULL)
        else:
            at = _passed(data, at, end)
        if at < 0:
            break
        at = _blanks(data, at, end)
        if at >= end:
            break
        if data[at] == 0x7D:  # }
            return (none if _blanks(data, at + 1, end) != end else written), id_at, id_length
        if data[at] != 0x2C:  # ,
            break
        at = _blanks(data, at + 1, end)
    return none, none, none


@kernel
def _msgpack_string(data, at, end):  # type: ignore[no-untyped-def]
    """Where the MessagePack string at ``at`` begins and ends; both torn if there is none, or one that is no text."""
    none = np.int64(_TORN)
    if at >= end:
        return none, none
    first = np.int64(data[at])
    digits = np.int64(0)
    length = first & 0x1F
    if first & 0xE0 != 0xA0:
        if not 0xD9 <= first <= 0xDB:
            return none, none
        digits = 1 << (first - 0xD9)
        length = np.int64(0)
    at += 1
    if digits > end - at:
        return none, none
    for i in range(at, at + digits):
        length = (length << 8) | np.int64(data[i])
    at += digits
    if length > end - at or not is_utf8(data, at, at + length):
        return none, none
    return at, at + length


@kernel
def _in_msgpack(data, at, end, text, id_, out, to):  # type: ignore[no-untyped-def]  # noqa: C901, PLR0911 - one loop
    """As ``_in_json``, in a flat map of MessagePack with at most 15 keys."""
    none = np.int64(_TORN)
    written, id_at, id_length = none, none, none
    has_id = False
    if at >= end or data[at] & 0xF0 != 0x80:
        return none, none, none
    pairs = data[at] & 0x0F
    at += 1
    for _ in range(pairs):
        key, key_end = _msgpack_string(data, at, end)
        if key < 0:
            return none, none, none
        value, value_end = _msgpack_string(data, key_end, end)
        null = value < 0 and key_end < end and data[key_end] == 0xC0
        if value < 0 and not null:
            return none, none, none
        if _same(data, key, key_end - key, text, 0, len(text)):
            if null or written >= 0:
                return none, none, none
            written = to
            for i in range(value, value_end):
                out[written] = data[i]
                written += 1
        elif _same(data, key, key_end - key, id_, 0, len(id_)):
            if has_id:
                return none, none, none
            has_id = True
            if not null:
                id_at, id_length = value, value_end - value
                for i in range(value, value_end):
                    if data[i] < _SPACE or data[i] == _QUOTE or data[i] == _BACKSLASH:
                        return none, none, none
        at = key_end + 1 if null else value_end
    return (none if at != end else written), id_at, id_length


@kernel
def _find_texts(  # type: ignore[no-untyped-def]  # noqa: PLR0917
    data,
    starts,
    lengths,
    offsets,
    expires_ms,
    forms,
    ready_ms,
    condemned,
    text,
    id_,
    limit,
    out,
    ends,
    count,
    places,
    ids,
):
    """Append to ``out`` and ``ends``, and write ``places`` and ``ids``. Returns how many texts are there, and how many
    requests are unread.
    """
    unread = 0
    for i in range(len(forms)):
        ids[0, i], ids[1, i] = 0, _TORN
        if expires_ms[i] < ready_ms:
            places[i] = EXPIRED
            continue
        if offsets[i] == condemned:
            places[i] = FAILED
            continue
        to = ends[count]
        at, end = starts[i], starts[i] + lengths[i]
        written, id_at, id_length = np.int64(_TORN), np.int64(_TORN), np.int64(_TORN)
        if lengths[i] >= 0 and forms[i] == IN_JSON and len(text):
            written, id_at, id_length = _in_json(data, at, end, text, id_, out, to)
        elif lengths[i] >= 0 and forms[i] == IN_MSGPACK and len(text):
            written, id_at, id_length = _in_msgpack(data, at, end, text, id_, out, to)
        elif lengths[i] >= 0 and forms[i] == BARE and is_utf8(data, at, end):
            for byte in range(at, end):
                out[to + byte - at] = data[byte]
            written = to + end - at
        if written < 0 or written - to > limit or id_length > MAX_ID_BYTES:
            places[i] = UNREAD
            unread += 1
            continue
        places[i], ids[0, i], ids[1, i] = count, id_at, id_length
        count += 1
        ends[count] = written
    return count, unread
