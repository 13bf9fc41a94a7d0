"""Quantizing: the trained float32 network to integers (:mod:`headrace.model.integers`).

Symmetric linear quantization: a value is an integer times a positive scale, zero is zero. Words, head and wide part
have a whole step for each row and one unit for the table, so that sums of rows need no rescaling; filters and folded
tables have a scale a filter.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.model.artifact import NIBBLE_LIMIT
from headrace.model.folding import TABLE_LIMIT, a_tap, columns_of, fold_unchecked, products, tables_digest
from headrace.model.integers import (
    MAX_CONVOLUTION,
    MAX_DIMENSIONS,
    MAX_FILTER_BIAS,
    MAX_STEP,
    MAX_TOKENS,
    MAX_WIDTH,
    ROOT_BITS,
    QuantizedNetwork,
    check_bounds,
    keys_of,
    largest_convolution,
    largest_features,
    largest_wide,
    stepped,
)
from headrace.model.network import Network, keep_rows

# The largest value of so many bits, one of them the sign. The range is symmetric: the lowest value is never used.
_LIMITS = {8: 127, 4: NIBBLE_LIMIT}
# Logits stay below it, so that they are exact as float64 too when a score is shown.
_LOGIT_LIMIT = 2.0**52
# Rows of a table are quantized in float64 piece by piece.
_CELLS_AT_ONCE = 2**20


class Bits(msgspec.Struct, frozen=True):
    """Bits of a stored value, 4 or 8: of the convolution's words, filters and head, and of the wide part."""

    convolution: Literal[4, 8] = 8
    wide: Literal[4, 8] = 8


def quantize(network: Network, bits: Bits = Bits()) -> QuantizedNetwork:  # noqa: B008 - frozen
    """Quantize a trained network; deterministic on one machine.

    Of kept words (or bigrams) with one key, only the most frequent is kept. Raises ValueError when the network has more
    dimensions, wider windows or more tokens than the integers hold, or a value that is not finite.
    """
    network = _without_clashes(network)
    _check(network)
    limit = _LIMITS[bits.convolution]
    word_unit = _largest(network.words) / (limit * MAX_STEP) or 1.0
    words, word_steps = _to_rows(network.words, word_unit, limit)
    quantized = [_to_filters(filters, limit) for filters in network.filters]
    filters = tuple(values for values, _ in quantized)
    filter_scales = np.concatenate([scales for _, scales in quantized])
    table_scales = _table_scales(words, word_steps * word_unit, filters, filter_scales, network)
    labels, rows, bigrams = len(network.labels), len(words), len(network.bigram_hashes)
    draft = QuantizedNetwork(
        labels=network.labels,
        max_tokens=network.max_tokens,
        widths=network.widths,
        word_keys=keys_of(network.word_hashes),
        words=words,
        word_steps=word_steps,
        word_unit=word_unit,
        filters=filters,
        filter_scales=filter_scales,
        table_scales=table_scales,
        filter_bias=np.rint(network.filter_bias / table_scales.astype(np.float64)).astype(np.int32),
        head=np.zeros(network.head.shape, np.int8),
        head_steps=np.ones(labels, np.uint8),
        wide_words=np.zeros((rows, labels), np.int8),
        wide_word_steps=np.ones(rows, np.uint8),
        bigram_keys=keys_of(network.bigram_hashes),
        wide_bigrams=np.zeros((bigrams, labels), np.int8),
        wide_bigram_steps=np.ones(bigrams, np.uint8),
        bias=np.zeros(labels, np.int64),
        convolution_factor=0,
        wide_factor=0,
        unit=1.0,
        tables_sha256="",
    )
    tables = fold_unchecked(draft)
    features = largest_features(tables, network.widths, draft.filter_bias)
    finished = replace(_with_linear_parts(draft, network, features, bits), tables_sha256=tables_digest(tables))
    check_bounds(finished, tables)
    return finished


def _without_clashes(network: Network) -> Network:
    words, bigrams = _first_of_key(network.word_hashes), _first_of_key(network.bigram_hashes)
    if len(words) == len(network.word_hashes) and len(bigrams) == len(network.bigram_hashes):
        return network
    return keep_rows(network, words, bigrams)


def _first_of_key(hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
    _, first = np.unique(keys_of(hashes), return_index=True)
    return np.sort(first)


def _check(network: Network) -> None:
    dimensions = network.words.shape[1]
    if dimensions > MAX_DIMENSIONS or max(network.widths) > MAX_WIDTH or network.max_tokens > MAX_TOKENS:
        raise ValueError(
            f"the integers hold {MAX_DIMENSIONS} dimensions, windows of {MAX_WIDTH} words and {MAX_TOKENS} tokens, "
            f"not {dimensions}, {max(network.widths)} and {network.max_tokens}"
        )
    arrays = {name: value for name, value in vars(network).items() if isinstance(value, np.ndarray)}
    arrays |= {f"filters of width {w}": f for w, f in zip(network.widths, network.filters, strict=True)}
    for name, array in arrays.items():
        if not np.all(np.isfinite(array)):
            raise ValueError(f"network: {name} holds a value that is not finite; training diverged")


def _to_rows(values: NDArray[np.floating[Any]], unit: float, limit: int) -> tuple[NDArray[np.int8], NDArray[np.uint8]]:
    """Stepped rows (see :mod:`headrace.model.integers`): each row's step is the least whole one that holds its values.

    A common unit loses little: what counts is an error's size in a sum over rows, and only large rows make large ones.
    """
    stored, all_steps = np.empty(values.shape, np.int8), np.empty(len(values), np.uint8)
    count = max(1, _CELLS_AT_ONCE // max(1, values.shape[1]))
    for first in range(0, len(values), count):
        wide = values[first : first + count].astype(np.float64)
        largest = np.abs(wide).max(axis=1, initial=0.0)
        steps = np.clip(np.ceil(largest / (limit * unit)), 1, MAX_STEP)
        stored[first : first + count] = np.clip(np.rint(wide / (steps * unit)[:, None]), -limit, limit)
        all_steps[first : first + count] = steps
    return stored, all_steps


def _to_filters(filters: NDArray[np.float32], limit: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """``filters`` float32[F, width, D] in int8 with one scale a filter; that of an all-zero filter is 1."""
    largest = np.abs(filters).max(axis=(1, 2), initial=0.0)
    scales = np.where(largest > 0, largest / np.float32(limit), np.float32(1.0)).astype(np.float32)
    rounded = np.rint(filters.astype(np.float64) / scales[:, None, None])
    return np.clip(rounded, -limit, limit).astype(np.int8), scales


def _table_scales(
    words: NDArray[np.int8],
    word_scales: NDArray[np.floating[Any]],
    filters: tuple[NDArray[np.int8], ...],
    filter_scales: NDArray[np.float32],
    network: Network,
) -> NDArray[np.float32]:
    """``float32[widths x F]``: the scale with which each filter's largest product is 127.

    A filter whose bias would be above 14 bits in such steps gets a larger one.
    """
    columns = columns_of(filters)
    largest = np.zeros(columns.shape[1])
    for rows, exact in products(words, columns):
        scaled = exact.astype(np.float64) * word_scales[rows, None]
        np.maximum(largest, np.abs(scaled).max(axis=0), out=largest)
    largest *= a_tap(filter_scales, network.widths)
    count = network.filters[0].shape[0]
    ends = np.cumsum(network.widths) * count
    per_filter = np.concatenate(
        [
            largest[end - width * count : end].reshape(width, count).max(axis=0)
            for width, end in zip(network.widths, ends, strict=True)
        ]
    )
    scales = np.maximum(per_filter / TABLE_LIMIT, np.abs(network.filter_bias) / (MAX_FILTER_BIAS - 1))
    return np.where(scales > 0, scales, 1.0).astype(np.float32)


def _with_linear_parts(
    draft: QuantizedNetwork, network: Network, features: NDArray[np.int64], bits: Bits
) -> QuantizedNetwork:
    """Head, wide part, blend and bias, scaled so that no sum can leave its type whatever the text."""
    limit = _LIMITS[bits.convolution]
    weights = network.head.astype(np.float64) * draft.table_scales
    head_unit = _head_unit(weights, features, limit)
    head, head_steps = _to_rows(weights, head_unit, limit)
    convolution_bound = largest_convolution(stepped(head, head_steps), features)

    limit = _LIMITS[bits.wide]
    wide_unit = max(_largest(network.wide_words), _largest(network.wide_bigrams)) / (limit * MAX_STEP) or 1.0
    wide_words, wide_word_steps = _to_rows(network.wide_words, wide_unit, limit)
    wide_bigrams, wide_bigram_steps = _to_rows(network.wide_bigrams, wide_unit, limit)
    wide_bound = largest_wide(
        stepped(wide_words, wide_word_steps), stepped(wide_bigrams, wide_bigram_steps), network.max_tokens
    )

    convolution_step = network.blend * head_unit
    wide_step = (1.0 - network.blend) * wide_unit / (1 << ROOT_BITS)
    bias = network.blend * network.head_bias.astype(np.float64) + (1.0 - network.blend) * network.wide_bias
    unit = (convolution_step * convolution_bound + wide_step * wide_bound + _largest(bias)) / _LOGIT_LIMIT or 1.0
    return replace(
        draft,
        head=head,
        head_steps=head_steps,
        wide_words=wide_words,
        wide_word_steps=wide_word_steps,
        wide_bigrams=wide_bigrams,
        wide_bigram_steps=wide_bigram_steps,
        bias=np.rint(bias / unit).astype(np.int64),
        convolution_factor=round(convolution_step / unit) if convolution_bound else 0,
        wide_factor=round(wide_step / unit) if wide_bound else 0,
        unit=unit,
    )


def _head_unit(weights: NDArray[np.float64], features: NDArray[np.int64], limit: int) -> float:
    """The least unit with which the head's steps and sums fit their types."""
    # Rounding adds at most half a step to each weight, and a step is less than one above largest / (limit * unit).
    largest = np.abs(weights).max(axis=1, initial=0.0)
    total = float(features.sum())
    sums = np.abs(weights) @ features + largest * total / (2 * limit)
    room = MAX_CONVOLUTION - total / 2 - 1
    return max(_largest(weights) / (limit * MAX_STEP), float(sums.max(initial=0.0)) / room) or 1.0


def _largest(values: NDArray[np.floating[Any]]) -> float:
    return max(float(values.max(initial=0.0)), -float(values.min(initial=0.0)))
