"""The hash table from 64-bit hashes to rows, against a dictionary."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.model.lookup import build_lookup, find

hashes = st.integers(0, 2**64 - 1) | st.integers(0, 5)


@settings(deadline=None)
@given(keys=st.lists(hashes, unique=True, max_size=40), others=st.lists(hashes, max_size=10))
def test_a_key_is_found_at_its_row_and_another_is_not(keys: list[int], others: list[int]) -> None:
    slots, shift = build_lookup(np.array(keys, np.uint64), first_row=2)
    rows = {key: row for row, key in enumerate(keys, start=2)}
    for key in keys + others:
        assert find(slots, shift, np.uint64(key)) == rows.get(key, 0)


@settings(deadline=None)
@given(keys=st.lists(hashes, unique=True, min_size=1, max_size=40))
def test_at_least_half_of_the_slots_stay_empty(keys: list[int]) -> None:
    slots, _ = build_lookup(np.array(keys, np.uint64), first_row=1)
    assert len(slots) >= 2 * len(keys)
    assert np.count_nonzero(slots[:, 1]) == len(keys)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_keys_of_one_home_slot_are_all_found(count: int) -> None:
    # Multiples of 2^60 times an odd factor differ in the top four bits only, and a table of 8 slots reads three.
    step = pow(0x9E3779B97F4A7C15, -1, 2**64)
    keys = [(place * step) % 2**64 for place in range(1, count + 1)]
    slots, shift = build_lookup(np.array(keys, np.uint64), first_row=1)
    assert [int(find(slots, shift, np.uint64(key))) for key in keys] == list(range(1, count + 1))
    assert find(slots, shift, np.uint64((99 * step) % 2**64)) == 0


def test_the_same_keys_give_the_same_table() -> None:
    keys = np.random.default_rng(0).integers(0, 2**63, 1000).astype(np.uint64)
    assert np.array_equal(build_lookup(keys, 2)[0], build_lookup(keys.copy(), 2)[0])
