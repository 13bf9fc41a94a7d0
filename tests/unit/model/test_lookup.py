"""The table from the keys of hashes to rows, against a dictionary."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.model.integers import keys_of
from headrace.model.lookup import LONGEST_SEARCH, SLOTS, build_lookup, find
from headrace.model.words import FNV_BASIS, FNV_PRIME, MIX_FIRST, MIX_SECOND, word_hash

all_keys = st.integers(0, 2**32 - 1) | st.integers(0, 5)


@settings(deadline=None)
@given(
    keys=st.lists(all_keys, unique=True, max_size=40),
    others=st.lists(all_keys, max_size=10),
    below=st.integers(0, 2**32 - 1),
)
def test_a_hash_is_found_by_its_key_and_another_is_not(keys: list[int], others: list[int], below: int) -> None:
    slots, shift = build_lookup(np.array(keys, np.uint32), first_row=2)
    rows = {key: row for row, key in enumerate(keys, start=2)}
    for key in keys + others:
        assert find(slots, shift, np.uint64(key << 32 | below)) == rows.get(key, 0)


@settings(deadline=None)
@given(keys=st.lists(all_keys, unique=True, min_size=1, max_size=40))
def test_at_least_half_of_the_slots_stay_empty(keys: list[int]) -> None:
    slots, _ = build_lookup(np.array(keys, np.uint32), first_row=1)
    slots = slots[SLOTS:]
    assert len(slots) >= 2 * len(keys)
    assert np.count_nonzero(slots) == len(keys)


def test_a_search_that_comes_to_the_last_slot_goes_on_at_the_first() -> None:
    for seed in range(200):
        keys = np.random.default_rng(seed).integers(0, 2**32, 3, dtype=np.uint32)
        table, shift = build_lookup(keys, first_row=1)
        assert [int(find(table, shift, np.uint64(key) << np.uint64(32))) for key in keys] == [1, 2, 3]


def longest_run(table: np.ndarray) -> int:
    """The most slots in a row that are taken: no search takes more probes, and one behind."""
    free = np.flatnonzero(np.tile(table[SLOTS:] == 0, 2))
    return int(np.diff(free).max()) - 1


def unmixed(value: int) -> int:
    """What MurmurHash3's finalizer made ``value`` of: it is a bijection, so anybody can go back."""
    for factor in (MIX_SECOND, MIX_FIRST):
        value ^= value >> 33
        value = value * pow(factor, -1, 2**64) % 2**64
    return value ^ (value >> 33)


def test_a_word_can_be_made_for_any_hash() -> None:
    # One character more to any word: the last step is undone, and what is left is that character.
    state = unmixed(word_hash("good"))
    before = state * pow(FNV_PRIME, -1, 2**64) % 2**64
    prefix = FNV_BASIS
    for character in "goo":
        prefix = ((prefix ^ ord(character)) * FNV_PRIME) % 2**64
    assert before ^ prefix == ord("d")


@pytest.mark.parametrize(
    "hashes",
    [
        np.arange(50_000, dtype=np.uint64) << np.uint64(32),  # all of the first slots, by the top bits
        (np.arange(50_000, dtype=np.uint64) << np.uint64(48)) | (np.arange(50_000, dtype=np.uint64) << np.uint64(32)),
        np.uint64(7) << np.uint64(48) | (np.arange(50_000, dtype=np.uint64) << np.uint64(32)),
        np.arange(2**32 - 50_000, 2**32, dtype=np.uint64) << np.uint64(32),
        np.arange(50_000, dtype=np.uint64) * np.uint64(2**15) << np.uint64(32),
    ],
)
def test_words_that_were_chosen_to_collide_make_no_long_search(hashes: np.ndarray) -> None:
    keys = np.unique(keys_of(hashes))
    table, shift = build_lookup(keys, first_row=2)
    assert longest_run(table) < LONGEST_SEARCH
    assert [int(find(table, shift, np.uint64(key) << np.uint64(32))) for key in keys[:100]] == list(range(2, 102))


def test_the_slot_of_a_word_is_known_only_with_the_last_word() -> None:
    keys = np.arange(1000, dtype=np.uint32)
    one, other = build_lookup(keys, 2)[0], build_lookup(np.append(keys[:-1], np.uint32(5000)), 2)[0]
    assert not np.intersect1d(one[:SLOTS], other[:SLOTS]).size


def test_the_same_keys_give_the_same_table() -> None:
    keys = np.random.default_rng(0).permutation(2**16).astype(np.uint32)[:1000]
    assert np.array_equal(build_lookup(keys, 2)[0], build_lookup(keys.copy(), 2)[0])
