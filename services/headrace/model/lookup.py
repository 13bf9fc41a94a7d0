"""An open-addressed table from the keys of hashes to rows: power-of-two size, load at most a half, linear probing.

It is derived from the artifact's list of keys, never stored. A slot is one 64-bit integer, the key above the row, so
that a probe reads one word of memory.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headrace.model.compiling import kernel
from headrace.model.integers import KEY_SHIFT

_BITS = 64
_KEY_SHIFT = np.uint64(KEY_SHIFT)
_ROW_MASK = np.uint64((1 << KEY_SHIFT) - 1)


@kernel(inline=True)
def home_slot(hash_, shift):  # type: ignore[no-untyped-def]
    """The slot where the search for ``hash_`` begins: its top bits, which are well mixed."""
    return hash_ >> shift


@kernel(inline=True)
def find(slots, shift, hash_):  # type: ignore[no-untyped-def]
    """The row of the key of ``hash_`` uint64 in a table of :func:`build_lookup`, 0 when it is not there."""
    key = hash_ >> _KEY_SHIFT
    mask = np.uint64(slots.shape[0] - 1)
    slot = home_slot(hash_, shift)
    while True:
        entry = slots[slot]
        # No row is 0, so 0 is the empty slot; at most half of the slots are taken, so the search ends.
        if entry == np.uint64(0) or entry >> _KEY_SHIFT == key:
            return entry & _ROW_MASK
        slot = (slot + np.uint64(1)) & mask


@kernel
def _insert(slots, shift, keys, first_row):  # type: ignore[no-untyped-def]
    mask = np.uint64(slots.shape[0] - 1)
    for place in range(len(keys)):
        key = np.uint64(keys[place]) << _KEY_SHIFT
        slot = home_slot(key, shift)
        while slots[slot] != np.uint64(0):
            slot = (slot + np.uint64(1)) & mask
        slots[slot] = key | np.uint64(first_row + place)


def build_lookup(keys: NDArray[np.uint32], first_row: int) -> tuple[NDArray[np.uint64], np.uint64]:
    """``(slots uint64[size], shift)``: ``keys[i]`` is found as row ``first_row + i``; ``first_row`` is above 0.

    Keys go in by their order, so the same keys give the same table, and the first ones (the frequent words) lie
    nearest to their home slots. The keys have to be distinct.
    """
    bits = max(1, (2 * len(keys) - 1).bit_length())
    slots = np.zeros(1 << bits, np.uint64)
    shift = np.uint64(_BITS - bits)
    # A copy, because numba compiles once more for arrays that can't be written, as a loaded artifact's are.
    _insert(slots, shift, keys.copy(), first_row)
    return slots, shift
