"""Whether bytes are UTF-8, for kernels: what Python decodes, and nothing else."""

from __future__ import annotations

import numpy as np

from headrace.model.compiling import kernel

# Table 3-7 of the Unicode Standard: the second byte's range depends on the first.
_ASCII_END, _LEAST_TWO, _LEAST_THREE, _LEAST_FOUR, _MOST = 0x80, 0xC2, 0xE0, 0xF0, 0xF4


@kernel
def is_utf8(data, begin, end):  # type: ignore[no-untyped-def]  # noqa: C901 - one test a length
    """Whether ``data[begin:end]`` (uint8) is well-formed."""
    i = np.uint64(begin)
    stop = np.uint64(end)
    one, two, three = np.uint64(1), np.uint64(2), np.uint64(3)
    while i < stop:
        first = data[i]
        if first < _ASCII_END:
            i += one
            continue
        if first < _LEAST_TWO or first > _MOST:
            return False
        more = one if first < _LEAST_THREE else two if first < _LEAST_FOUR else three
        if i + more >= stop:
            return False
        second = data[i + one]
        least, most = 0x80, 0xBF
        if first == 0xE0:
            least = 0xA0
        elif first == 0xED:  # surrogates
            most = 0x9F
        elif first == 0xF0:
            least = 0x90
        elif first == 0xF4:  # beyond U+10FFFF
            most = 0x8F
        if second < least or second > most:
            return False
        for at in range(i + two, i + more + one):
            if data[at] & 0xC0 != 0x80:
                return False
        i += more + one
    return True
