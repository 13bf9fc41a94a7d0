"""Bounds over all possible texts: that no sum of the answering path can leave its integer type."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from headrace.core.errors import UserError
from headrace.model.integers import (
    MAX_CONVOLUTION,
    MAX_FEATURE,
    MAX_FILTER_BIAS,
    MAX_LOGIT,
    QuantizedNetwork,
    inverse_roots,
    stepped,
)


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
