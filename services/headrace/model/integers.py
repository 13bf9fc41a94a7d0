"""The network in integers: what an artifact holds and every backend computes, to the bit.

For a text of n words (cut at ``max_tokens``), with T the folded tables of :mod:`headrace.model.folding`:

- ``pooled[f]``: the largest sum of ``width`` table entries over the windows of filter f's width;
  ``feature[f] = max(0, pooled[f] + filter_bias[f])``, at most 32767;
- ``convolution[c] = sum(head[c, f] * feature[f])``, within 32 bits;
- ``wide[c] = (sum of wide_words over all words + sum of wide_bigrams over all adjacent pairs) * inverse_roots[n]``;
- ``logit[c] = convolution[c] * convolution_factor + wide[c] * wide_factor + bias[c]``, below 2^62, times ``unit``.

The label is the largest logit's, the lowest index on a tie. Floats appear only where scores are shown.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Above it a float32 product of int8 values could leave the integers that float32 holds exactly: 127 * 127 * D < 2^24.
MAX_DIMENSIONS = 1040
# Sums of wide weights stay within 32 bits: (2 * MAX_TOKENS - 1) * 32767 < 2^31.
MAX_TOKENS = 32768
# Sums of table entries stay within 16 bits, and beside the largest bias too: 64 * 127 + 2^14 < 2^15.
MAX_WIDTH = 64
MAX_FILTER_BIAS = 2**14
MAX_FEATURE = 2**15 - 1
MAX_CONVOLUTION = 2**31 - 1
MAX_LOGIT = 2**62

ROOT_BITS = 16


def inverse_roots(max_tokens: int) -> NDArray[np.int64]:
    """``int64[max_tokens + 1]``: 2^16 / sqrt(n) rounded to the nearest, in integers only; entry 0 is that of 1."""
    # isqrt gives floor(2 x), and floor((floor(2 x) + 1) / 2) is x rounded to the nearest.
    roots = [(math.isqrt((4 << (2 * ROOT_BITS)) // max(n, 1)) + 1) // 2 for n in range(max_tokens + 1)]
    return np.array(roots, np.int64)


@dataclass(frozen=True, eq=False)
class QuantizedNetwork:
    """V kept words, D dimensions, F filters a width, B kept bigrams, C labels; see the module for the meaning.

    - ``word_hashes`` uint64[V]; ``words`` int8[V + 2, D] times ``word_scales`` float32[V + 2];
    - ``filters``: an int8[F, width, D] for each width, times ``filter_scales`` float32[widths x F];
    - ``table_scales`` float32[widths x F]: the step of the folded table's entries, one a filter;
      ``tables_sha256``: what folding has to give;
    - ``filter_bias`` int32[widths x F] in steps of the table; ``head`` int16[C, widths x F];
    - ``wide_words`` int16[V + 2, C]; ``bigram_hashes`` uint64[B]; ``wide_bigrams`` int16[B, C]; ``bias`` int64[C].
    """

    labels: tuple[str, ...]
    max_tokens: int
    widths: tuple[int, ...]
    word_hashes: NDArray[np.uint64]
    words: NDArray[np.int8]
    word_scales: NDArray[np.float32]
    filters: tuple[NDArray[np.int8], ...]
    filter_scales: NDArray[np.float32]
    table_scales: NDArray[np.float32]
    filter_bias: NDArray[np.int32]
    head: NDArray[np.int16]
    wide_words: NDArray[np.int16]
    bigram_hashes: NDArray[np.uint64]
    wide_bigrams: NDArray[np.int16]
    bias: NDArray[np.int64]
    convolution_factor: int
    wide_factor: int
    unit: float
    tables_sha256: str

    @property
    def filters_a_width(self) -> int:
        """F."""
        return len(self.filters[0])
