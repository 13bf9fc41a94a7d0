"""Quantizing: the trained float32 network to integers (:mod:`headrace.model.integers`).

Symmetric linear quantization: a value is an integer times a positive scale, zero is zero. Words have a scale a row,
filters and folded tables a scale a filter, the head and the wide part one scale each, so that sums need no rescaling.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from headrace.model.bounds import check_bounds, largest_convolution, largest_features, largest_wide
from headrace.model.folding import TABLE_LIMIT, a_tap, columns_of, fold_unchecked, products, tables_digest
from headrace.model.integers import (
    MAX_CONVOLUTION,
    MAX_DIMENSIONS,
    MAX_FILTER_BIAS,
    MAX_TOKENS,
    MAX_WIDTH,
    ROOT_BITS,
    QuantizedNetwork,
)
from headrace.model.network import Network

_INT8 = 127
_INT16 = 32767
# Logits stay below it, so that they are exact as float64 too when a score is shown.
_LOGIT_LIMIT = 2.0**52


def quantize(network: Network) -> QuantizedNetwork:
    """Quantize a trained network; deterministic on one machine.

    Raises ValueError when the network has more dimensions, wider windows or more tokens than the integers hold, or a
    value that is not finite.
    """
    _check(network)
    words, word_scales = _to_int8(network.words, axes=(1,))
    quantized = [_to_int8(filters, axes=(1, 2)) for filters in network.filters]
    filters = tuple(values for values, _ in quantized)
    filter_scales = np.concatenate([scales for _, scales in quantized])
    table_scales = _table_scales(words, word_scales, filters, filter_scales, network)
    draft = QuantizedNetwork(
        labels=network.labels,
        max_tokens=network.max_tokens,
        widths=network.widths,
        word_hashes=network.word_hashes,
        words=words,
        word_scales=word_scales,
        filters=filters,
        filter_scales=filter_scales,
        table_scales=table_scales,
        filter_bias=np.rint(network.filter_bias / table_scales.astype(np.float64)).astype(np.int32),
        head=np.zeros(network.head.shape, np.int16),
        wide_words=np.zeros(network.wide_words.shape, np.int16),
        bigram_hashes=network.bigram_hashes,
        wide_bigrams=np.zeros(network.wide_bigrams.shape, np.int16),
        bias=np.zeros(len(network.labels), np.int64),
        convolution_factor=0,
        wide_factor=0,
        unit=1.0,
        tables_sha256="",
    )
    tables = fold_unchecked(draft)
    features = largest_features(tables, network.widths, draft.filter_bias)
    finished = replace(_with_linear_parts(draft, network, features), tables_sha256=tables_digest(tables))
    check_bounds(finished, tables)
    return finished


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


def _to_int8(values: NDArray[np.float32], axes: tuple[int, ...]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """``values`` in int8 with one scale for each index of the axes left; an all-zero slice has the scale 1."""
    largest = np.abs(values).max(axis=axes, keepdims=True, initial=0.0)
    scales = np.where(largest > 0, largest / np.float32(_INT8), np.float32(1.0)).astype(np.float32)
    rounded = np.rint(values.astype(np.float64) / scales)
    return np.clip(rounded, -_INT8, _INT8).astype(np.int8), scales.reshape(-1)


def _table_scales(
    words: NDArray[np.int8],
    word_scales: NDArray[np.float32],
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
        np.maximum(largest, np.abs(exact * word_scales[rows, None]).max(axis=0), out=largest)
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


def _with_linear_parts(draft: QuantizedNetwork, network: Network, features: NDArray[np.int64]) -> QuantizedNetwork:
    """Head, wide part, blend and bias, scaled so that no sum can leave its type whatever the text."""
    head = network.head.astype(np.float64) * draft.table_scales
    # Rounding adds at most a half to each weight, hence at most half of the features' sum.
    room = MAX_CONVOLUTION - float(features.sum()) / 2 - 1
    head_unit = max(_largest(head) / _INT16, float((np.abs(head) @ features).max(initial=0.0)) / room) or 1.0
    head_integers = np.rint(head / head_unit).astype(np.int16)
    convolution_bound = largest_convolution(head_integers, features)

    wide_unit = max(_largest(network.wide_words), _largest(network.wide_bigrams)) / _INT16 or 1.0
    wide_words = np.rint(network.wide_words / wide_unit).astype(np.int16)
    wide_bigrams = np.rint(network.wide_bigrams / wide_unit).astype(np.int16)
    wide_bound = largest_wide(wide_words, wide_bigrams, network.max_tokens)

    convolution_step = network.blend * head_unit
    wide_step = (1.0 - network.blend) * wide_unit / (1 << ROOT_BITS)
    bias = network.blend * network.head_bias.astype(np.float64) + (1.0 - network.blend) * network.wide_bias
    unit = (convolution_step * convolution_bound + wide_step * wide_bound + _largest(bias)) / _LOGIT_LIMIT or 1.0
    return replace(
        draft,
        head=head_integers,
        wide_words=wide_words,
        wide_bigrams=wide_bigrams,
        bias=np.rint(bias / unit).astype(np.int64),
        convolution_factor=round(convolution_step / unit) if convolution_bound else 0,
        wide_factor=round(wide_step / unit) if wide_bound else 0,
        unit=unit,
    )


def _largest(values: NDArray[np.generic]) -> float:
    return float(np.abs(values.astype(np.float64)).max(initial=0.0))
