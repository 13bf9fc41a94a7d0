"""The network in integers: what an artifact holds and every backend computes, to the bit.

For a text of n words (cut at ``max_tokens``), with T the folded tables of :mod:`headrace.model.folding`:

- ``pooled[f]``: the largest sum of ``width`` table entries over the windows of filter f's width;
  ``feature[f] = max(0, pooled[f] + filter_bias[f])``, at most 32767;
- ``convolution[c] = sum(head[c, f] * feature[f])``, within 32 bits;
- ``wide[c] = (sum of wide_words over all words + sum of wide_bigrams over all adjacent pairs) * inverse_roots[n]``;
- ``logit[c] = convolution[c] * convolution_factor + wide[c] * wide_factor + bias[c]``, below 2^62, times ``unit``.

The label is the largest logit's, the lowest index on a tie. Floats appear only where scores are shown.

Words, head and the wide part are stored as *stepped rows*: int8 values and for each row a whole step in 1..255, so that
a row is its values times its step, an int16, and all rows of a table share one unit. A word or bigram is known by its
*key*, the upper 32 bits of its hash. No two kept words have the same key; an unknown word is taken for a kept one with
the probability V / 2^32 (30,000 words: 1 in 143,000).

Bounds over all possible texts: that no sum of the answering path can leave its integer type.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.core.errors import UserError
from headrace.model.words import HASHING

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
KEY_SHIFT = 32
MAX_STEP = 255


def inverse_roots(max_tokens: int) -> NDArray[np.int64]:
    """``int64[max_tokens + 1]``: 2^16 / sqrt(n) rounded to the nearest, in integers only; entry 0 is that of 1."""
    # isqrt gives floor(2 x), and floor((floor(2 x) + 1) / 2) is x rounded to the nearest.
    roots = [(math.isqrt((4 << (2 * ROOT_BITS)) // max(n, 1)) + 1) // 2 for n in range(max_tokens + 1)]
    return np.array(roots, np.int64)


def keys_of(hashes: NDArray[np.uint64]) -> NDArray[np.uint32]:
    """The keys of word or bigram hashes: their upper 32 bits."""
    return (hashes >> np.uint64(KEY_SHIFT)).astype(np.uint32)


def stepped(values: NDArray[np.int8], steps: NDArray[np.uint8]) -> NDArray[np.int16]:
    """``int16[rows, columns]``: each row of ``values`` times its step; within +-127 * 255, which 16 bits hold."""
    product: NDArray[np.int16] = values.astype(np.int16) * steps.astype(np.int16)[:, None]
    return product


@dataclass(frozen=True, eq=False)
class QuantizedNetwork:
    """V kept words, D dimensions, F filters a width, B kept bigrams, C labels; see the module for the meaning.

    - ``word_keys`` uint32[V]; ``words`` int8[V + 2, D] times ``word_steps`` uint8[V + 2] times ``word_unit``;
    - ``filters``: an int8[F, width, D] for each width, times ``filter_scales`` float32[widths x F];
    - ``table_scales`` float32[widths x F]: the step of the folded table's entries, one a filter;
      ``tables_sha256``: what folding has to give;
    - ``filter_bias`` int32[widths x F] in steps of the table;
    - ``head`` int8[C, widths x F] times ``head_steps`` uint8[C];
    - ``wide_words`` int8[V + 2, C] times ``wide_word_steps`` uint8[V + 2]; ``bigram_keys`` uint32[B]; ``wide_bigrams``
      int8[B, C] times ``wide_bigram_steps`` uint8[B]; ``bias`` int64[C].

    Where the formulas say head, wide_words and wide_bigrams, they mean the rows of :func:`stepped`.
    """

    labels: tuple[str, ...]
    max_tokens: int
    widths: tuple[int, ...]
    word_keys: NDArray[np.uint32]
    words: NDArray[np.int8]
    word_steps: NDArray[np.uint8]
    word_unit: float
    filters: tuple[NDArray[np.int8], ...]
    filter_scales: NDArray[np.float32]
    table_scales: NDArray[np.float32]
    filter_bias: NDArray[np.int32]
    head: NDArray[np.int8]
    head_steps: NDArray[np.uint8]
    wide_words: NDArray[np.int8]
    wide_word_steps: NDArray[np.uint8]
    bigram_keys: NDArray[np.uint32]
    wide_bigrams: NDArray[np.int8]
    wide_bigram_steps: NDArray[np.uint8]
    bias: NDArray[np.int64]
    convolution_factor: int
    wide_factor: int
    unit: float
    tables_sha256: str
    hashing: str = HASHING
    """How words are cut and hashed: as in the training."""

    @property
    def filters_a_width(self) -> int:
        """F."""
        return len(self.filters[0])


class BoundsError(UserError):
    """Some text could make a sum leave its integer type, so the answers could be wrong."""


def largest_features(
    tables: NDArray[np.int8], widths: Sequence[int], filter_bias: NDArray[np.int32]
) -> NDArray[np.int64]:
    """``int64[widths x F]``: for each filter a bound that no text's feature exceeds.

    ``tables`` int8[V + 2, taps, F] and ``filter_bias`` int32[widths x F] as in :mod:`headrace.model.integers`.
    """
    per_tap = tables.max(axis=0).astype(np.int64)
    ends = np.cumsum(widths)
    sums = [per_tap[end - width : end].sum(axis=0) for width, end in zip(widths, ends, strict=True)]
    return np.maximum(np.concatenate(sums) + filter_bias, 0)


def largest_convolution(head: NDArray[np.int16], features: NDArray[np.int64]) -> int:
    """A bound of the head's sums, partial ones included, for features up to ``features``."""
    return int((np.abs(head.astype(np.int64)) @ features).max(initial=0))


def largest_wide(wide_words: NDArray[np.int16], wide_bigrams: NDArray[np.int16], max_tokens: int) -> int:
    """A bound of the wide part after its division; n words and n - 1 bigrams over sqrt(n) grow with n."""
    # Without a copy: with many labels the tables are large.
    word, bigram = (max(int(of.max(initial=0)), -int(of.min(initial=0))) for of in (wide_words, wide_bigrams))
    return (word * max_tokens + bigram * (max_tokens - 1)) * int(inverse_roots(max_tokens)[-1])


def check_bounds(network: QuantizedNetwork, tables: NDArray[np.int8]) -> None:
    """Raises BoundsError when a text could bring a feature above 15 bits, a head's sum above 31 or a logit above 62."""
    bias = int(np.abs(network.filter_bias.astype(np.int64)).max(initial=0))
    features = largest_features(tables, network.widths, network.filter_bias)
    feature = int(features.max(initial=0))
    if bias > MAX_FILTER_BIAS or feature > MAX_FEATURE:
        raise BoundsError(
            f"filter biases reach {bias} (allowed {MAX_FILTER_BIAS}) and features {feature} (allowed {MAX_FEATURE})"
        )
    convolution = largest_convolution(stepped(network.head, network.head_steps), features)
    if convolution > MAX_CONVOLUTION:
        raise BoundsError(f"the head's sums could reach {convolution} (allowed {MAX_CONVOLUTION})")
    wide = largest_wide(
        stepped(network.wide_words, network.wide_word_steps),
        stepped(network.wide_bigrams, network.wide_bigram_steps),
        network.max_tokens,
    )
    logit = convolution * abs(network.convolution_factor) + wide * abs(network.wide_factor)
    logit += max((abs(int(bias)) for bias in network.bias), default=0)
    if logit >= MAX_LOGIT:
        raise BoundsError(f"a logit could reach {logit} (allowed below {MAX_LOGIT})")
