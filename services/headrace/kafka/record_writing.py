"""What writers of packed records share: spans of bytes, and kernels for copies and for numbers, packed and in digits.

https://kafka.apache.org/documentation/#recordbatch
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.kafka.packed_records import PackedBatch, PackedRecords
from headrace.model.checksums import CRC32C, checksum
from headrace.model.compiling import kernel
from headrace.model.instructions import copy_sixteen

ROOM = 16
"""So many bytes are copied at a time, where there is room for more than is asked for."""
MOST_RECORD = 5 * 5 + 1
"""A record without key, value and headers has at most so many bytes: five numbers and the attributes."""


class Spans(msgspec.Struct, frozen=True, eq=False):
    """For each record some bytes of ``data`` uint8: where they start ``int64[n]`` and how many ``int64[n]``, -1 for
    None.
    """

    data: NDArray[np.uint8]
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]

    def total(self) -> int:
        """How many bytes they are together."""
        return int(np.maximum(self.sizes, 0).sum())


def spans_of(texts: Mapping[int, bytes | None], count: int) -> Spans:
    """The spans of ``texts``, which are by place; the others of ``count`` are None."""
    starts, sizes = np.zeros(count, np.int64), np.full(count, -1, np.int64)
    pieces = []
    at = 0
    for place, text in texts.items():
        if text is not None:
            starts[place], sizes[place] = at, len(text)
            pieces.append(text)
            at += len(text)
    return Spans(np.frombuffer(b"".join(pieces), np.uint8), starts, sizes)


def cut(data: NDArray[np.uint8], ends: NDArray[np.int64], counts: NDArray[np.int64]) -> PackedRecords:
    """The batches that lie one behind the other in ``data`` uint8: the first ends at ``ends[1]`` int64[b + 1] and has
    ``counts[1]`` records.
    """
    spans = zip(pairwise(ends.tolist()), counts[1:].tolist(), strict=True)
    return PackedRecords([PackedBatch(data[start:end].tobytes(), count, _crc32c) for (start, end), count in spans])


def _crc32c(data: bytes) -> int:
    """Four to six times as fast as aiokafka's."""
    return int(checksum(np.frombuffer(data, np.uint8), 0, len(data), CRC32C))


@kernel
def copy(source, start, end, out, at):  # type: ignore[no-untyped-def]
    """Copy ``source[start:end]``, and what lies behind it if there is room: the next copy writes over it."""
    stop = at + end - start
    if end + ROOM <= len(source) and stop + ROOM <= len(out):
        while at < stop:
            copy_sixteen(out, at, source, start)
            at, start = at + ROOM, start + ROOM
    else:
        for i in range(start, end):
            out[at] = source[i]
            at += 1
    return stop


@kernel
def varint_size(number):  # type: ignore[no-untyped-def]
    """How many bytes ``varint`` writes."""
    size, rest = 1, (number << 1) ^ (number >> 63)
    while rest > 0x7F:
        size += 1
        rest >>= 7
    return size


@kernel
def varint(number, out, at):  # type: ignore[no-untyped-def]
    """Write a number of variable length, as records have them. Returns where it ends."""
    rest = (number << 1) ^ (number >> 63)
    while rest > 0x7F:
        out[at] = 0x80 | (rest & 0x7F)
        at += 1
        rest >>= 7
    out[at] = rest
    return at + 1


_TENS = 10 ** np.arange(19)
_DIGITS = np.frombuffer(b"".join(b"%02d" % number for number in range(100)), np.uint8)
_HUNDRED, _TEN, _TWO = np.uint64(100), np.uint64(10), np.uint64(2)
_ZERO, _MINUS = np.uint64(ord("0")), ord("-")


@kernel
def two_digits(number, out, place):  # type: ignore[no-untyped-def]
    """Write a uint64 below 100 to ``out[place : place + 2]``."""
    out[place] = _DIGITS[_TWO * number]
    out[place + 1] = _DIGITS[_TWO * number + np.uint64(1)]


@kernel
def digits_of(value, digits):  # type: ignore[no-untyped-def]
    """How many characters a number has, looked for from ``digits`` on, 1 at least. The lowest of int64 is taken for
    its neighbour, which has as many.
    """
    size = np.int64(0)
    if value < 0:
        size, value = np.int64(1), max(-value, -(value + 1))
    while digits < len(_TENS) and value >= _TENS[digits]:
        digits += 1
    while digits > 1 and value < _TENS[digits - 1]:
        digits -= 1
    return digits + size


@kernel
def write_number(value, size, out, at):  # type: ignore[no-untyped-def]
    """Write a whole number in ``size`` characters, its ``digits_of``. Returns where it ends."""
    place = at + size
    rest = np.uint64(abs(value))
    while rest >= _TEN:
        place -= 2
        two_digits(rest % _HUNDRED, out, place)
        rest //= _HUNDRED
    if place > at:
        out[place - 1] = _ZERO + rest
    if value < 0:
        out[at] = _MINUS
    return at + size
