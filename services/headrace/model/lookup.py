"""An open-addressed table from the keys of hashes to rows: power-of-two size, load at most a half, linear probing.

It is derived from the artifact's list of keys, never stored. A slot is one 64-bit integer, the key above the row, so
that a probe reads one word of memory.

The hash of a word has no secret, so whoever writes labels could choose words that begin their search at neighbouring
slots: 50,000 such words make one search of 50,000 probes. So the slot is the key times a number plus another, both
drawn from all keys of the artifact by SHAKE-256 (multiply-shift; Dietzfelbinger, "Universal hashing and k-wise
independent random variables", STACS 1996): nobody knows them before the last word is chosen. Multiply-shift alone
bounds no longest search, so it is measured, and they are drawn again while it is above :data:`LONGEST_SEARCH`. Both
numbers are stored in front of the slots.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from headrace.core.errors import UserError
from headrace.model.compiling import kernel
from headrace.model.integers import KEY_SHIFT

_BITS = 64
_KEY_SHIFT = np.uint64(KEY_SHIFT)
_ROW_MASK = np.uint64((1 << KEY_SHIFT) - 1)
_PURPOSE = b"headrace lookup 1"
_ONE = np.uint64(1)
_FACTOR, _SUMMAND, _SLOTS = (np.uint64(place) for place in (0, 1, 2))
SLOTS = int(_SLOTS)
"""Where the slots begin."""
LONGEST_SEARCH = 128
"""Probes. Half a million keys drawn by chance have 60 or so."""
MOST_DRAWS = 32
_TOO_LONG = LONGEST_SEARCH


class LookupTableError(UserError):
    """No table with short searches can be made of an artifact's keys."""


@kernel(inline=True)
def home_slot(table, hash_, shift):  # type: ignore[no-untyped-def]
    """Where in ``table`` the search for ``hash_`` begins."""
    return _SLOTS + (((hash_ >> _KEY_SHIFT) * table[_FACTOR] + table[_SUMMAND]) >> shift)


@kernel(inline=True)
def find(table, shift, hash_):  # type: ignore[no-untyped-def]
    """The row of the key of ``hash_`` uint64 in a table of :func:`build_lookup`, 0 when it is not there."""
    key = hash_ >> _KEY_SHIFT
    end = np.uint64(table.shape[0])
    slot = home_slot(table, hash_, shift)
    while True:
        entry = table[slot]
        # No row is 0, so 0 is the empty slot; at most half of the slots are taken, so the search ends.
        if entry == np.uint64(0) or entry >> _KEY_SHIFT == key:
            return entry & _ROW_MASK
        slot += _ONE
        if slot == end:
            slot = _SLOTS


@kernel
def _insert(table, shift, keys, first_row):  # type: ignore[no-untyped-def]
    """Returns the most slots that one key was away from its home."""
    end = np.uint64(table.shape[0])
    longest = 0
    for place in range(len(keys)):
        key = np.uint64(keys[place]) << _KEY_SHIFT
        slot = home_slot(table, key, shift)
        away = 0
        while table[slot] != np.uint64(0):
            away += 1
            if away == _TOO_LONG:
                return away
            slot += _ONE
            if slot == end:
                slot = _SLOTS
        longest = max(longest, away)
        table[slot] = key | np.uint64(first_row + place)
    return longest


@kernel
def _longest_run(table):  # type: ignore[no-untyped-def]
    """The most slots in a row that are taken, going on at the first: no search has more probes, and one behind."""
    slots = table.shape[0] - SLOTS
    longest = run = 0
    for at in range(2 * slots):
        run = run + 1 if table[SLOTS + at % slots] != np.uint64(0) else 0
        longest = max(longest, run)
    return longest


def build_lookup(keys: NDArray[np.uint32], first_row: int) -> tuple[NDArray[np.uint64], np.uint64]:
    """``(table uint64[SLOTS + slots], shift)``: ``keys[i]`` is found as row ``first_row + i``, which is above 0.

    Keys are inserted in their order, so the same keys give the same table, and the first ones (the frequent words) lie
    nearest to their home slots. The keys have to be distinct. Raises LookupTableError when no draw gives short
    searches, which never happens by chance.
    """
    bits = max(1, (2 * len(keys) - 1).bit_length())
    shift = np.uint64(_BITS - bits)
    seed = hashlib.shake_256(_PURPOSE + keys.astype("<u4").tobytes()).digest(16 * MOST_DRAWS)
    drawn = np.frombuffer(seed, "<u8").astype(np.uint64).reshape(MOST_DRAWS, SLOTS)
    # A copy, because numba compiles once more for arrays that can't be written, as a loaded artifact's are.
    keys = keys.copy()
    for factor, summand in drawn:
        table = np.zeros(SLOTS + (1 << bits), np.uint64)
        table[:SLOTS] = factor | _ONE, summand
        if _insert(table, shift, keys, first_row) < LONGEST_SEARCH and _longest_run(table) < LONGEST_SEARCH:
            return table, shift
    raise LookupTableError(
        f"{len(keys)} words or bigrams lie so that a search in their table takes more than {LONGEST_SEARCH} steps by "
        f"each of {MOST_DRAWS} draws; who wrote this artifact chose them so"
    )
