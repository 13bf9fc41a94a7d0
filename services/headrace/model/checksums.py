"""CRC-32 and CRC-32C of pieces of an array, for kernels.

Eight bytes a step by tables (Intel's slicing-by-8); where the processor multiplies without carries, sixteen a step by
folding: V. Gopal et al., "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ Instruction", Intel 2009.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from headrace.model.compiling import kernel
from headrace.model.instructions import CARRYLESS, flip, fold, half, load_pair, make_pair

CRC32: Final = 0
"""Of zlib, Ethernet and our answers."""
CRC32C: Final = 1
"""Castagnoli's, of Kafka's record batches."""
_POLYNOMIALS: Final = (0xEDB88320, 0x82F63B78)


def _tables(polynomial: int) -> NDArray[np.uint32]:
    """uint32[8, 256] of a reflected polynomial: row i is the remainder of a byte with i zero bytes behind it."""
    first = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        first = np.where(first & 1, (first >> 1) ^ np.uint32(polynomial), first >> 1)
    rows = [first]
    for _ in range(7):
        rows.append((rows[-1] >> 8) ^ first[rows[-1] & 0xFF])
    return np.array(rows, np.uint32)


def _power(exponent: int, polynomial: int) -> int:
    """The remainder of x to ``exponent``, reflected in 64 bits: the highest bit is the coefficient of 1."""
    remainder = 1 << 31
    for _ in range(exponent):
        remainder = (remainder >> 1) ^ (polynomial if remainder & 1 else 0)
    return remainder << 32


_TABLES: Final = np.array([_tables(one) for one in _POLYNOMIALS])
# Of a folded pair the first half lies 192 bits in front of the next 128, the second 128. The product of two reflected
# numbers of 64 bits lacks one bit of 128, so each power is one less.
_POWERS: Final = np.array([[_power(191, one), _power(127, one)] for one in _POLYNOMIALS], np.uint64)

_BYTE = np.uint32(0xFF)
_ONES = np.uint32(0xFFFFFFFF)
_EIGHT, _SIXTEEN, _TWENTY_FOUR = np.uint32(8), np.uint32(16), np.uint32(24)
_STEP, _LONG_STEP = np.uint64(8), np.uint64(16)


@kernel
def _four(data, i):  # type: ignore[no-untyped-def]
    """Four bytes as a little-endian number."""
    return (
        np.uint32(data[i])
        | (np.uint32(data[i + np.uint64(1)]) << _EIGHT)
        | (np.uint32(data[i + np.uint64(2)]) << _SIXTEEN)
        | (np.uint32(data[i + np.uint64(3)]) << _TWENTY_FOUR)
    )


@kernel
def _of_eight(low, high, tables):  # type: ignore[no-untyped-def]
    """The remainder of eight bytes, as two little-endian numbers of which the first has the remainder before in it."""
    return (
        tables[7, low & _BYTE]
        ^ tables[6, (low >> _EIGHT) & _BYTE]
        ^ tables[5, (low >> _SIXTEEN) & _BYTE]
        ^ tables[4, low >> _TWENTY_FOUR]
        ^ tables[3, high & _BYTE]
        ^ tables[2, (high >> _EIGHT) & _BYTE]
        ^ tables[1, (high >> _SIXTEEN) & _BYTE]
        ^ tables[0, high >> _TWENTY_FOUR]
    )


@kernel
def _rest(data, i, stop, crc, tables):  # type: ignore[no-untyped-def]
    """The remainder of what is before, ``crc``, and ``data[i:stop]``."""
    while i + _STEP <= stop:
        crc = _of_eight(crc ^ _four(data, i), _four(data, i + np.uint64(4)), tables)
        i += _STEP
    while i < stop:
        crc = (crc >> _EIGHT) ^ tables[0, (crc ^ np.uint32(data[i])) & _BYTE]
        i += np.uint64(1)
    return crc


@kernel
def by_tables(data, begin, end, which):  # type: ignore[no-untyped-def]
    """As ``checksum``, on any processor."""
    return _rest(data, np.uint64(begin), np.uint64(end), _ONES, _TABLES[which]) ^ _ONES


@kernel
def _by_folding(data, begin, end, which):  # type: ignore[no-untyped-def]
    """As ``checksum``, where the processor is CARRYLESS."""
    tables = _TABLES[which]
    crc = _ONES
    i, stop = np.uint64(begin), np.uint64(end)
    if i + _LONG_STEP <= stop:
        by = make_pair(_POWERS[which, 0], _POWERS[which, 1])
        folded = flip(load_pair(data, i), make_pair(np.uint64(_ONES), np.uint64(0)))
        i += _LONG_STEP
        while i + _LONG_STEP <= stop:
            folded = fold(folded, by, load_pair(data, i))
            i += _LONG_STEP
        first, second = half(folded, 0), half(folded, 1)
        crc = _of_eight(np.uint32(first), np.uint32(first >> np.uint64(32)), tables)
        crc = _of_eight(crc ^ np.uint32(second), np.uint32(second >> np.uint64(32)), tables)
    return _rest(data, i, stop, crc, tables) ^ _ONES


checksum: Any = _by_folding if CARRYLESS else by_tables
"""``checksum(data, begin, end, which)``: the uint32 of ``data[begin:end]`` (uint8) by :data:`CRC32` or
:data:`CRC32C`.
"""


@kernel
def checksums(data, starts, lengths, which, out):  # type: ignore[no-untyped-def]
    """Write to ``out`` uint32[n] the checksum of each piece of ``data``; a length below 0 counts as 0."""
    for i in range(len(out)):
        out[i] = checksum(data, starts[i], starts[i] + max(lengths[i], 0), which)
