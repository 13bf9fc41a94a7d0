"""An open-addressed table from 64-bit hashes to rows: power-of-two size, load at most a half, linear probing.

It is derived from the artifact's list of hashes, never stored. Keys and rows lie side by side, so that a probe touches
one cache line.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headrace.model.compiling import kernel

# Fibonacci hashing (Knuth, volume 3, section 6.4): 2^64 divided by the golden ratio, odd; the top bits are the slot.
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_BITS = 64


@kernel(inline=True)
def home_slot(key, shift):  # type: ignore[no-untyped-def]
    """The slot where the search for ``key`` begins; ``shift`` is 64 less the table's bits."""
    return (key * _FACTOR) >> shift


@kernel(inline=True)
def find(slots, shift, key):  # type: ignore[no-untyped-def]
    """The row of ``key`` in a table of :func:`build_lookup`, 0 when it is not there."""
    mask = np.uint64(slots.shape[0] - 1)
    slot = home_slot(key, shift)
    while True:
        row = slots[slot, 1]
        # Row 0 is the empty slot; at most half of the slots are taken, so the search ends.
        if row == np.uint64(0) or slots[slot, 0] == key:
            return row
        slot = (slot + np.uint64(1)) & mask


@kernel
def _insert(slots, shift, keys, first_row):  # type: ignore[no-untyped-def]
    mask = np.uint64(slots.shape[0] - 1)
    for place in range(len(keys)):
        slot = home_slot(keys[place], shift)
        while slots[slot, 1] != np.uint64(0):
            slot = (slot + np.uint64(1)) & mask
        slots[slot, 0] = keys[place]
        slots[slot, 1] = np.uint64(first_row + place)


def build_lookup(keys: NDArray[np.uint64], first_row: int) -> tuple[NDArray[np.uint64], np.uint64]:
    """``(slots uint64[size, 2], shift)``: ``keys[i]`` is found as row ``first_row + i``; ``first_row`` is above 0.

    Keys go in by their order, so the same keys give the same table, and the first ones (the frequent words) lie
    nearest to their home slots. The keys have to be distinct.
    """
    bits = max(1, (2 * len(keys) - 1).bit_length())
    slots = np.zeros((1 << bits, 2), np.uint64)
    shift = np.uint64(_BITS - bits)
    # A copy, because numba compiles once more for arrays that can't be written, as a loaded artifact's are.
    _insert(slots, shift, keys.copy(), first_row)
    return slots, shift
