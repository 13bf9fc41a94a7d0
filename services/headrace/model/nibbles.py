"""Rows of integers within +-7, packed two a byte: how an artifact stores tables of four bits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

NIBBLE_LIMIT = 7


def pack_nibbles(values: NDArray[np.int8]) -> NDArray[np.uint8]:
    """``uint8[rows, ceil(columns / 2)]`` from ``values`` int8[rows, columns] within +-7.

    The even column is the low half of its byte, in two's complement; an odd number of columns ends with a half of zero.
    """
    even = np.pad(values, ((0, 0), (0, values.shape[1] % 2))).view(np.uint8) & np.uint8(15)
    packed: NDArray[np.uint8] = even[:, ::2] | (even[:, 1::2] << np.uint8(4))
    return packed


def unpack_nibbles(packed: NDArray[np.uint8], columns: int) -> NDArray[np.int8]:
    """What :func:`pack_nibbles` was given.

    Raises ValueError when ``packed`` has not the shape for so many columns, or holds what packing does not make: -8, or
    a half that is left over and not zero.
    """
    if packed.ndim != 2 or packed.shape[1] != -(-columns // 2):
        raise ValueError(f"uint8{list(packed.shape)} does not hold {columns} columns of four bits")
    halves = np.stack([packed & 15, packed >> 4], axis=2).reshape(len(packed), 2 * packed.shape[1])
    values = (halves ^ 8).view(np.int8) - np.int8(8)
    if values.min(initial=0) < -NIBBLE_LIMIT or values[:, columns:].any():
        raise ValueError("it holds a half byte that packing does not make")
    return np.ascontiguousarray(values[:, :columns])
