"""Kernels that find the text and the id of a request in MessagePack.

What they read, msgspec reads in the same way. They stop, and the request is odd, at a key that is no string, at bytes
and extensions, at maps and lists of more than 65,535, and at every fault.
"""

from __future__ import annotations

import numpy as np

from headrace.model.compiling import kernel
from headrace.model.utf8 import is_utf8
from headrace.worker.request_json import BACKSLASH, QUOTE, SPACE
from headrace.worker.request_paths import DEEPEST, TORN, is_part

_NIL = 0xC0


@kernel
def _string(data, at, end):  # type: ignore[no-untyped-def]
    """Where the MessagePack string at ``at`` begins and ends; both torn if there is none, or one that is no text."""
    none = np.int64(TORN)
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
def _count(data, at, end, few, many):  # type: ignore[no-untyped-def]
    """How many items the map or list at ``at`` has, torn if there is none, and where they begin. ``few`` are the upper
    four bits of its head with up to 15 items, ``many`` is the head in front of a number of two bytes.
    """
    none = np.int64(TORN)
    if at < end and data[at] & 0xF0 == few:
        return np.int64(data[at] & 0x0F), at + 1
    if at + 3 <= end and data[at] == many:
        return (np.int64(data[at + 1]) << 8) | np.int64(data[at + 2]), at + 3
    return none, none


@kernel
def _is_string(head):  # type: ignore[no-untyped-def]
    return head & 0xE0 == 0xA0 or 0xD9 <= head <= 0xDB


@kernel
def _scalar(data, at, end):  # type: ignore[no-untyped-def]
    """Where a value without parts ends, or torn."""
    if at >= end:
        return np.int64(TORN)
    head = data[at]
    if _is_string(head):
        _, stop = _string(data, at, end)
        return stop
    size = np.int64(TORN)
    if head < 0x80 or head >= 0xE0 or head in (_NIL, 0xC2, 0xC3):  # small numbers, nil, booleans
        size = np.int64(1)
    elif 0xCA <= head <= 0xD3:  # floats and whole numbers; of 1, 2, 4 or 8 bytes by the lowest bits
        size = np.int64(1) + (np.int64(1) << np.int64(head & 3))
    return at + size if 0 < size <= end - at else np.int64(TORN)


@kernel
def _passed(data, at, end, left):  # type: ignore[no-untyped-def]  # noqa: C901 - one loop
    """Where a value that nobody asks for ends; torn for a fault, or more than DEEPEST levels. ``left`` int64[DEEPEST]
    is written.
    """
    depth = 0
    # A bit for each open level, the innermost the lowest: whether it is a map.
    maps = np.int64(0)
    while True:
        items, begin = _count(data, at, end, 0x90, 0xDC)
        of_map = np.int64(items < 0)
        if items < 0:
            items, begin = _count(data, at, end, 0x80, 0xDE)
            items *= 2
        if depth and maps & 1 and left[depth - 1] % 2 == 0:
            # A key: only a string is sure to be one.
            if at >= end or not _is_string(data[at]):
                return np.int64(TORN)
            items = np.int64(TORN)
        if items > 0:
            if depth == DEEPEST:
                return np.int64(TORN)
            left[depth] = items
            depth, maps, at = depth + 1, (maps << 1) | of_map, begin
            continue
        at = begin if items == 0 else _scalar(data, at, end)
        if at < 0:
            return np.int64(TORN)
        while depth:
            left[depth - 1] -= 1
            if left[depth - 1]:
                break
            depth, maps = depth - 1, maps >> 1
        if not depth:
            return at


@kernel
def in_msgpack(data, at, end, keys, ends, text_parts, out, to, left):  # type: ignore[no-untyped-def]  # noqa: C901, PLR0911, PLR0912, PLR0917 - one loop
    """As ``in_json``, in a map of MessagePack. ``left`` int64[2, DEEPEST] is written."""
    none = np.int64(TORN)
    written, id_at, id_length = none, none, none
    id_parts = len(ends) - 1 - text_parts
    depth, text_depth, id_depth = 0, 0, 0
    text_seen, id_seen = np.int64(0), np.int64(0)
    pairs, at = _count(data, at, end, 0x80, 0xDE)
    if at < 0:
        return none, none, none
    left[0, 0] = pairs
    while True:
        while not left[0, depth]:
            if not depth:
                return (none if at != end else written), id_at, id_length
            depth -= 1
            text_depth, id_depth = min(text_depth, depth), min(id_depth, depth)
        left[0, depth] -= 1
        key, at = _string(data, at, end)
        if key < 0:
            return none, none, none
        level = np.int64(1) << depth
        to_text = text_depth == depth and is_part(data, key, at - key, keys, ends, depth)
        to_id = id_depth == depth and is_part(data, key, at - key, keys, ends, text_parts + depth)
        # Of a key that comes twice the last counts.
        if at >= end or (to_text and text_seen & level) or (to_id and id_seen & level):
            return none, none, none
        if to_text:
            text_seen |= level
        if to_id:
            id_seen |= level
        if to_text and depth + 1 == text_parts:
            value, at = _string(data, at, end)
            if value < 0:
                return none, none, none
            written = to
            for i in range(value, at):
                out[written] = data[i]
                written += 1
        elif to_id and depth + 1 == id_parts:
            if data[at] == _NIL:
                at += 1
                continue
            id_at, at = _string(data, at, end)
            id_length = at - id_at
            if id_at < 0:
                return none, none, none
            for i in range(id_at, at):
                if data[i] < SPACE or data[i] == QUOTE or data[i] == BACKSLASH:
                    return none, none, none
        else:
            items, begin = _count(data, at, end, 0x80, 0xDE)
            if items >= 0 and (to_text or to_id):
                depth += 1
                left[0, depth], at = items, begin
                text_depth = depth if to_text else text_depth
                id_depth = depth if to_id else id_depth
                continue
            if (to_text or to_id) and _count(data, at, end, 0x90, 0xDC)[0] >= 0:
                # A part of a path may be a place of a list.
                return none, none, none
            at = _passed(data, at, end, left[1])
            if at < 0:
                return none, none, none
