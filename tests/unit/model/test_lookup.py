"""The table from the keys of hashes to rows, against a dictionary."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.model.lookup import build_lookup, find

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
    assert len(slots) >= 2 * len(keys)
    assert np.count_nonzero(slots) == len(keys)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_keys_of_one_home_slot_are_all_found(count: int) -> None:
    # The last slot is the home of all of them, so that the search goes on at the first.
    keys = [2**32 - place for place in range(1, count + 1)]
    slots, shift = build_lookup(np.array(keys, np.uint32), first_row=1)
    assert [int(find(slots, shift, np.uint64(key << 32))) for key in keys] == list(range(1, count + 1))
    assert find(slots, shift, np.uint64((2**32 - 99) << 32)) == 0


def test_the_same_keys_give_the_same_table() -> None:
    keys = np.random.default_rng(0).permutation(2**16).astype(np.uint32)[:1000]
    assert np.array_equal(build_lookup(keys, 2)[0], build_lookup(keys.copy(), 2)[0])
