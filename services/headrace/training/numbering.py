"""Number equal keys equally, so that counting and comparing them is arithmetic on arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

KEY_BYTES = 16
"""How much of a digest tells keys apart: with 10^9 of them two collide with a probability of 10^-21."""


def key_halves(keys: Sequence[bytes]) -> NDArray[np.uint64]:
    """The first 16 bytes of each key, (n, 2); a key that is shorter is padded with zeros."""
    joined = b"".join(key[:KEY_BYTES].ljust(KEY_BYTES, b"\0") for key in keys)
    return np.frombuffer(joined, "<u8").reshape(len(keys), 2)


def number_keys(halves: NDArray[np.uint64]) -> NDArray[np.int64]:
    """(n, 2) keys to (n,) numbers from 0 on, without a gap: equal for equal keys, in the order of the keys."""
    numbers = np.zeros(len(halves), np.int64)
    order = np.lexsort((halves[:, 1], halves[:, 0]))
    ordered = halves[order]
    numbers[order[1:]] = np.cumsum((ordered[1:] != ordered[:-1]).any(axis=1))
    return numbers
