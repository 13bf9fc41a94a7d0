"""CRC-32 and CRC-32C of pieces of an array, for kernels: eight bytes a step by tables (Intel's slicing-by-8)."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from headrace.model.compiling import kernel


def _tables(polynomial: int) -> NDArray[np.uint32]:
    """uint32[8, 256] of a reflected polynomial: row i is the remainder of a byte with i zero bytes behind it."""
    first = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        first = np.where(first & 1, (first >> 1) ^ np.uint32(polynomial), first >> 1)
    rows = [first]
    for _ in range(7):
        rows.append((rows[-1] >> 8) ^ first[rows[-1] & 0xFF])
    return np.array(rows, np.uint32)


CRC32: Final = _tables(0xEDB88320)
"""Of zlib, Ethernet and our answers."""
CRC32C: Final = _tables(0x82F63B78)
"""Castagnoli's, of Kafka's record batches."""

_BYTE = np.uint32(0xFF)
_ONES = np.uint32(0xFFFFFFFF)
_EIGHT, _SIXTEEN, _TWENTY_FOUR = np.uint32(8), np.uint32(16), np.uint32(24)


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
def checksum(data, begin, end, tables):  # type: ignore[no-untyped-def]
    """The uint32 checksum of ``data[begin:end]`` (uint8) by :data:`CRC32` or :data:`CRC32C`."""
    crc = _ONES
    i = np.uint64(begin)
    stop = np.uint64(end)
    eight, four = np.uint64(8), np.uint64(4)
    while i + eight <= stop:
        low = crc ^ _four(data, i)
        high = _four(data, i + four)
        crc = (
            tables[7, low & _BYTE]
            ^ tables[6, (low >> _EIGHT) & _BYTE]
            ^ tables[5, (low >> _SIXTEEN) & _BYTE]
            ^ tables[4, low >> _TWENTY_FOUR]
            ^ tables[3, high & _BYTE]
            ^ tables[2, (high >> _EIGHT) & _BYTE]
            ^ tables[1, (high >> _SIXTEEN) & _BYTE]
            ^ tables[0, high >> _TWENTY_FOUR]
        )
        i += eight
    while i < stop:
        crc = (crc >> _EIGHT) ^ tables[0, (crc ^ np.uint32(data[i])) & _BYTE]
        i += np.uint64(1)
    return crc ^ _ONES


@kernel
def checksums(data, starts, lengths, tables, out):  # type: ignore[no-untyped-def]
    """Write to ``out`` uint32[n] the checksum of each piece of ``data``; a length below 0 counts as 0."""
    for i in range(len(out)):
        out[i] = checksum(data, starts[i], starts[i] + max(lengths[i], 0), tables)
