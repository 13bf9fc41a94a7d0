"""Four bits a value: what is packed comes back, and what packing does not make is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from headrace.model.artifact import pack_nibbles, unpack_nibbles


@given(arrays(np.int8, st.tuples(st.integers(0, 5), st.integers(1, 9)), elements=st.integers(-7, 7)))
def test_what_is_packed_comes_back_from_half_the_bytes(values: np.ndarray) -> None:
    packed = pack_nibbles(values)
    assert packed.dtype == np.uint8
    assert packed.shape == (len(values), (values.shape[1] + 1) // 2)
    assert np.array_equal(unpack_nibbles(packed, values.shape[1]), values)


def test_the_even_column_is_the_low_half() -> None:
    assert pack_nibbles(np.array([[1, 2, -1]], np.int8)).tolist() == [[0x21, 0x0F]]


@pytest.mark.parametrize(
    ("packed", "columns", "message"),
    [
        ([[0x08]], 2, "half byte"),
        ([[0x10]], 1, "half byte"),
        ([[0x11]], 3, "3 columns"),
        ([0x11], 2, "2 columns"),
    ],
)
def test_what_packing_does_not_make_is_refused(packed: list[list[int]], columns: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        unpack_nibbles(np.array(packed, np.uint8), columns)
