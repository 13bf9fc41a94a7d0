"""Kernels that find the text and the id of a request in JSON.

What they read, msgspec reads in the same way. They stop, and the request is odd, at an escaped key or an id with
escapes, at a long number, and at every fault.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from headrace.model.compiling import kernel
from headrace.model.utf8 import is_utf8
from headrace.worker.request_paths import ABSENT, DEEPEST, TORN, is_part, same

QUOTE: Final = 0x22
BACKSLASH: Final = 0x5C
SPACE: Final = 0x20


@kernel
def _blanks(data, at, end):  # type: ignore[no-untyped-def]
    """Where JSON goes on behind white space."""
    while at < end and (data[at] == 0x20 or data[at] == 0x0A or data[at] == 0x0D or data[at] == 0x09):
        at += 1
    return at


@kernel
def _hex(data, at, end):  # type: ignore[no-untyped-def]
    """The number of four hexadecimal digits, torn for others."""
    if at + 4 > end:
        return np.int64(TORN)
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
            return np.int64(TORN)
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
def _escape(data, at, end):  # type: ignore[no-untyped-def]  # noqa: C901, PLR0911 - one test an escape
    """Where the escape behind the backslash at ``at`` ends, or torn, and the code point that it stands for."""
    none = np.int64(TORN)
    at += 1
    if at >= end:
        return none, none
    letter = np.int64(data[at])
    if letter == 0x75:  # u
        code = _hex(data, at + 1, end)
        at += 5
        if 0xD800 <= code < 0xDC00:
            if at + 2 > end or data[at] != BACKSLASH or data[at + 1] != 0x75:
                return none, none
            low = _hex(data, at + 2, end)
            at += 6
            if not 0xDC00 <= low < 0xE000:
                return none, none
            code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00)
        elif code < 0 or 0xDC00 <= code < 0xE000:
            return none, none
        return at, code
    if letter == 0x6E:  # n
        letter = np.int64(0x0A)
    elif letter == 0x74:  # t
        letter = np.int64(0x09)
    elif letter == 0x72:  # r
        letter = np.int64(0x0D)
    elif letter == 0x62:  # b
        letter = np.int64(0x08)
    elif letter == 0x66:  # f
        letter = np.int64(0x0C)
    elif letter not in (QUOTE, BACKSLASH, 0x2F):
        return none, none
    return at + 1, letter


@kernel
def _string(data, at, end, escapes):  # type: ignore[no-untyped-def]
    """Where the JSON string that begins behind a quote at ``at`` ends; torn with a control character or no end, and
    with an escape unless it may have ``escapes``.
    """
    wide = False
    begin = at
    while at < end:
        byte = data[at]
        if byte == QUOTE:
            return at if not wide or is_utf8(data, begin, at) else np.int64(TORN)
        if byte < SPACE:
            break
        if byte == BACKSLASH:
            if not escapes:
                break
            at, _ = _escape(data, at, end)
            if at < 0:
                break
            continue
        wide = wide or byte >= 0x80
        at += 1
    return np.int64(TORN)


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
        if byte == QUOTE:
            if wide and not is_utf8(out, begin, np.int64(put)):
                break
            return np.int64(i), np.int64(put)
        if byte == BACKSLASH:
            after, code = _escape(data, np.int64(i), end)
            if after < 0:
                break
            i, put = np.uint64(after), np.uint64(_encode(code, out, np.int64(put)))
            continue
        if byte < SPACE:
            break
        wide = wide or byte >= 0x80
        out[put] = byte
        put += one
        i += one
    return np.int64(TORN), begin


@kernel
def _word(data, at, end, word):  # type: ignore[no-untyped-def]
    """Where the bytes of ``word`` end, or torn."""
    if at + len(word) > end or not same(data, at, len(word), word, 0, len(word)):
        return np.int64(TORN)
    return at + len(word)


_NULL, _TRUE, _FALSE = (np.frombuffer(word, np.uint8) for word in (b"null", b"true", b"false"))
_ZERO, _NINE = ord("0"), ord("9")
_MOST_DIGITS = 18
"""Of a whole number or a fraction; of an exponent there are at most two. Such numbers are in the range of any type."""


@kernel
def _digits(data, at, end):  # type: ignore[no-untyped-def]
    """Where the digits that begin at ``at`` end."""
    while at < end and _ZERO <= data[at] <= _NINE:
        at += 1
    return at


@kernel
def _whole(data, at, end):  # type: ignore[no-untyped-def]
    """Where the whole number at ``at`` ends; torn for none, a long one and one that begins with 0."""
    if at < end and data[at] == 0x2D:
        at += 1
    stop = _digits(data, at, end)
    if not 1 <= stop - at <= _MOST_DIGITS or (stop - at > 1 and data[at] == _ZERO):
        return np.int64(TORN)
    return stop


@kernel
def _number(data, at, end):  # type: ignore[no-untyped-def]
    """Where the number at ``at`` ends; torn for none and for a long one."""
    at = _whole(data, at, end)
    if 0 <= at < end and data[at] == 0x2E:
        stop = _digits(data, at + 1, end)
        at = stop if 1 < stop - at <= 1 + _MOST_DIGITS else np.int64(TORN)
    if 0 <= at < end and data[at] | 0x20 == 0x65:  # e or E
        at += 1
        if at < end and (data[at] == 0x2B or data[at] == 0x2D):
            at += 1
        stop = _digits(data, at, end)
        at = stop if 1 <= stop - at <= 2 else np.int64(TORN)
    return at


@kernel
def _scalar(data, at, end):  # type: ignore[no-untyped-def]
    """Where a JSON value without parts ends, or torn."""
    if at >= end:
        return np.int64(TORN)
    first = data[at]
    if first == QUOTE:
        close = _string(data, at + 1, end, True)
        return close + 1 if close >= 0 else np.int64(TORN)
    if first == 0x6E:
        return _word(data, at, end, _NULL)
    if first == 0x74:
        return _word(data, at, end, _TRUE)
    if first == 0x66:
        return _word(data, at, end, _FALSE)
    return _number(data, at, end)


@kernel
def _past_key(data, at, end):  # type: ignore[no-untyped-def]
    """Where the value behind a key of a JSON object begins, or torn."""
    if at >= end or data[at] != QUOTE:
        return np.int64(TORN)
    close = _string(data, at + 1, end, True)
    if close < 0:
        return np.int64(TORN)
    at = _blanks(data, close + 1, end)
    return _blanks(data, at + 1, end) if at < end and data[at] == 0x3A else np.int64(TORN)


@kernel
def _passed(data, at, end):  # type: ignore[no-untyped-def]  # noqa: C901, PLR0911, PLR0912 - one loop
    """Where a JSON value that nobody asks for ends; torn for a fault, a long number, or more than DEEPEST levels."""
    depth = 0
    # A bit for each open level, the innermost the lowest: whether it is an object.
    objects = np.int64(0)
    while True:
        if at < end and (data[at] == 0x7B or data[at] == 0x5B):
            if depth == DEEPEST:
                return np.int64(TORN)
            of_object = np.int64(data[at] == 0x7B)
            depth, objects = depth + 1, (objects << 1) | of_object
            at = _blanks(data, at + 1, end)
            if at >= end or data[at] != (0x7D if of_object else 0x5D):
                if of_object:
                    at = _past_key(data, at, end)
                    if at < 0:
                        return np.int64(TORN)
                continue
        else:
            at = _scalar(data, at, end)
            if at < 0:
                return np.int64(TORN)
        # A value has ended, or an empty level is about to.
        while True:
            if not depth:
                return at
            at = _blanks(data, at, end)
            if at >= end:
                return np.int64(TORN)
            of_object = objects & 1
            if data[at] != (0x7D if of_object else 0x5D):
                break
            at += 1
            depth, objects = depth - 1, objects >> 1
        if data[at] != 0x2C:  # ,
            return np.int64(TORN)
        at = _blanks(data, at + 1, end)
        if of_object:
            at = _past_key(data, at, end)
            if at < 0:
                return np.int64(TORN)


@kernel
def in_json(data, at, end, keys, ends, text_parts, whole_ids, out, to):  # type: ignore[no-untyped-def]  # noqa: C901, PLR0912, PLR0915, PLR0917 - one loop
    """Find the text and the id in the JSON object ``data[at:end]``, and write the text to ``out`` from ``to`` on.

    ``keys``, ``ends`` and ``text_parts`` are KeyPaths. ``whole_ids``: a whole number is an id too. Returns where the
    text ends in ``out``, or torn, or absent where the text's path is one key that is not there; and the id's beginning
    and length.
    """
    none = np.int64(TORN)
    written, id_at, id_length = none, none, none
    id_parts = len(ends) - 1 - text_parts
    # Levels that are entered, and how many of them are parts of the paths. What was seen is a bit for each level.
    depth, text_depth, id_depth = 0, 0, 0
    text_seen, id_seen = np.int64(0), np.int64(0)
    at = _blanks(data, at, end)
    if at >= end or data[at] != 0x7B:  # {
        return none, none, none
    at = _blanks(data, at + 1, end)
    while at < end and data[at] == QUOTE:
        key = at + 1
        key_end = _string(data, key, end, False)
        if key_end < 0:
            break
        at = _blanks(data, key_end + 1, end)
        if at >= end or data[at] != 0x3A:  # :
            break
        at = _blanks(data, at + 1, end)
        if at >= end:
            break
        level = np.int64(1) << depth
        to_text = text_depth == depth and is_part(data, key, key_end - key, keys, ends, depth)
        to_id = id_depth == depth and is_part(data, key, key_end - key, keys, ends, text_parts + depth)
        # Of a key that comes twice the last counts.
        if (to_text and text_seen & level) or (to_id and id_seen & level):
            break
        if to_text:
            text_seen |= level
        if to_id:
            id_seen |= level
        if to_text and depth + 1 == text_parts:
            if data[at] != QUOTE:
                break
            at, written = _json_text(data, at + 1, end, out, to)
            if at < 0:
                break
            at += 1
        elif to_id and depth + 1 == id_parts:
            if data[at] == QUOTE:
                id_at = at + 1
                close = _string(data, id_at, end, False)
                if close < 0:
                    break
                id_length, at = close - id_at, close + 1
            elif whole_ids and data[at] != 0x6E:
                id_at = at
                at = _whole(data, at, end)
                id_length = at - id_at
                if id_length > 1 and data[id_at] == 0x2D and data[id_at + 1] == _ZERO:  # -0, which is 0
                    break
            else:
                at = _word(data, at, end, _NULL)
        elif (to_text or to_id) and data[at] == 0x7B:
            depth += 1
            text_depth = depth if to_text else text_depth
            id_depth = depth if to_id else id_depth
            at = _blanks(data, at + 1, end)
            if at < end and data[at] != 0x7D:
                continue
        elif (to_text or to_id) and data[at] == 0x5B:  # A part of a path may be a place of a list.
            break
        else:
            at = _passed(data, at, end)
        if at < 0:
            break
        at = _blanks(data, at, end)
        while at < end and data[at] == 0x7D:  # }
            at = _blanks(data, at + 1, end)
            if not depth:
                if text_parts == 1 and not text_seen:
                    written = np.int64(ABSENT)
                return (none if at != end else written), id_at, id_length
            depth -= 1
            text_depth, id_depth = min(text_depth, depth), min(id_depth, depth)
        if at >= end or data[at] != 0x2C:  # ,
            break
        at = _blanks(data, at + 1, end)
    return none, none, none
