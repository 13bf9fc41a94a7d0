"""Arrays as the fast backends lay them out, and a batch as their threads share it."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

FILTER_LANES = 32
"""F is padded to a multiple: int16 values in the widest SIMD register (AVX-512), and the smallest block of a GPU."""

_Kind = TypeVar("_Kind", bound=np.generic)


def padded(array: NDArray[_Kind], axis: int, multiple: int) -> NDArray[_Kind]:
    """``array`` with zeros appended along ``axis`` up to a multiple of ``multiple``, contiguous."""
    widths = [(0, 0)] * array.ndim
    widths[axis] = (0, -array.shape[axis] % multiple)
    return np.ascontiguousarray(np.pad(array, widths))


def by_width(array: NDArray[_Kind], widths: int, filters: int) -> NDArray[_Kind]:
    """``[..., widths x F]`` with each width's filters padded like the tables' columns."""
    split = array.reshape(*array.shape[:-1], widths, filters)
    wider = padded(split, split.ndim - 1, FILTER_LANES)
    return wider.reshape(*array.shape[:-1], -1)


def shares(offsets: NDArray[np.int64], parts: int) -> list[int]:
    """``parts`` + 1 places that cut texts of these offsets into parts of like many bytes: a long one costs more."""
    cuts = np.searchsorted(offsets, np.linspace(0, offsets[-1], parts + 1)[1:-1])
    return [0, *map(int, cuts), len(offsets) - 1]
