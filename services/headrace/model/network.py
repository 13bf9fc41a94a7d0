"""The trained network in float32, numpy only: what training hands over and quantizing takes.

A convolution over words (Kim 2014: embedding, several widths, maximum over time, linear) and beside it a linear map
over hashed words and bigrams (Wang and Manning 2012), blended by one weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from headrace.model.words import BIGRAM_FACTOR, MIX_FIRST, MIX_SECOND, hash_strings

PADDING_ROW = 0
UNKNOWN_ROW = 1
FIRST_WORD_ROW = 2

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Network:
    """Everything that training found. V kept words, D dimensions, F filters a width, B kept bigrams, C labels.

    - ``labels``: C names; ``max_tokens``: a text is cut to that many words; ``widths``: of the convolution's windows.
    - ``word_hashes`` uint64[V]: the kept words by falling training frequency. Word i is row i + 2 of ``words`` and
      ``wide_words``; row 0 is padding (zeros) and row 1 stands for every unknown word.
    - ``words`` float32[V + 2, D]; ``filters``: a float32[F, width, D] for each width; ``filter_bias``
      float32[widths x F]; ``head`` float32[C, widths x F]; ``head_bias`` float32[C].
    - ``wide_words`` float32[V + 2, C] (row 0 is not used); ``bigram_hashes`` uint64[B]; ``wide_bigrams`` float32[B, C];
      ``wide_bias`` float32[C].
    - ``blend``: weight of the convolution in [0, 1]; the wide part has the rest.
    """

    labels: tuple[str, ...]
    max_tokens: int
    widths: tuple[int, ...]
    word_hashes: NDArray[np.uint64]
    words: Floats
    filters: tuple[Floats, ...]
    filter_bias: Floats
    head: Floats
    head_bias: Floats
    wide_words: Floats
    bigram_hashes: NDArray[np.uint64]
    wide_bigrams: Floats
    wide_bias: Floats
    blend: float

    def __post_init__(self) -> None:
        """Raises ValueError that names the first field whose shape, type or value does not fit the others."""
        kept, labels, bigrams = len(self.word_hashes), len(self.labels), len(self.bigram_hashes)
        dimensions = self.words.shape[-1]
        count = self.filters[0].shape[0] if self.filters else 0
        total = count * len(self.widths)
        expected = {
            "word_hashes": ((kept,), np.uint64),
            "words": ((kept + FIRST_WORD_ROW, dimensions), np.float32),
            "filter_bias": ((total,), np.float32),
            "head": ((labels, total), np.float32),
            "head_bias": ((labels,), np.float32),
            "wide_words": ((kept + FIRST_WORD_ROW, labels), np.float32),
            "bigram_hashes": ((bigrams,), np.uint64),
            "wide_bigrams": ((bigrams, labels), np.float32),
            "wide_bias": ((labels,), np.float32),
        }
        for name, (shape, kind) in expected.items():
            _check(name, getattr(self, name), shape, kind)
        if len(self.filters) != len(self.widths) or not self.widths:
            raise ValueError(f"network: {len(self.widths)} widths but {len(self.filters)} arrays of filters")
        for width, filters in zip(self.widths, self.filters, strict=True):
            _check(f"filters of width {width}", filters, (count, width, dimensions), np.float32)
        for name in ("word_hashes", "bigram_hashes"):
            if len(np.unique(getattr(self, name))) != len(getattr(self, name)):
                raise ValueError(f"network: {name} holds a hash twice, so one of its rows could never be found")
        if labels < 1 or self.max_tokens < 1 or not 0.0 <= self.blend <= 1.0:
            raise ValueError(
                f"network: needs a label, max_tokens >= 1 and 0 <= blend <= 1,"
                f" not {labels} labels, {self.max_tokens} and {self.blend}"
            )
        if np.any(self.words[PADDING_ROW]):
            raise ValueError("network: row 0 of words is padding and must be zero")


def _check(name: str, array: NDArray[np.generic], shape: tuple[int, ...], kind: type) -> None:
    if array.shape != shape or array.dtype != kind:
        raise ValueError(
            f"network: {name} must be {np.dtype(kind).name}{list(shape)}, not {array.dtype.name}{list(array.shape)}"
        )


def keep_rows(network: Network, words: NDArray[np.int64], bigrams: NDArray[np.int64]) -> Network:
    """``network`` with only the kept words and bigrams at these places; the other words are unknown words to it."""
    rows = np.concatenate([np.array([PADDING_ROW, UNKNOWN_ROW]), words + FIRST_WORD_ROW])
    return replace(
        network,
        word_hashes=network.word_hashes[words],
        words=network.words[rows],
        wide_words=network.wide_words[rows],
        bigram_hashes=network.bigram_hashes[bigrams],
        wide_bigrams=network.wide_bigrams[bigrams],
    )


class SortedKeys:
    """Finds values among ``keys`` [n], which are sorted once. Of equal keys the first is found."""

    def __init__(self, keys: NDArray[np.unsignedinteger]) -> None:
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]

    def places(self, values: NDArray[np.unsignedinteger]) -> NDArray[np.int64]:
        """The place of each value in the keys, or -1: int64, shape of ``values``."""
        if not len(self._keys):
            return np.full(values.shape, -1, np.int64)
        found = np.minimum(np.searchsorted(self._keys, values), len(self._keys) - 1)
        return np.where(self._keys[found] == values, self._order[found], -1)


def rows_of(hashes: NDArray[np.uint64], kept: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The place of each hash in ``kept``, or -1: int64, shape of ``hashes``."""
    return SortedKeys(kept).places(hashes)


def word_rows(hashes: NDArray[np.uint64], kept: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The row of ``words`` for each hash: 2 + its place in ``kept``, or 1 for a word that is not kept."""
    return np.maximum(rows_of(hashes, kept) + FIRST_WORD_ROW, UNKNOWN_ROW)


def pair_hashes(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """``uint64[n - 1]``: the bigram hashes of one text's word hashes (see :func:`headrace.model.words.bigram_hash`)."""
    value = hashes[:-1] * np.uint64(BIGRAM_FACTOR) + hashes[1:]
    value = (value ^ (value >> np.uint64(33))) * np.uint64(MIX_FIRST)
    value = (value ^ (value >> np.uint64(33))) * np.uint64(MIX_SECOND)
    return value ^ (value >> np.uint64(33))


def adjacent(starts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """``bool[words - 1]``: whether words i and i + 1 of texts that lie end to end are neighbours in one text."""
    text_of = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    same: NDArray[np.bool_] = text_of[1:] == text_of[:-1]
    return same


def float_logits(network: Network, texts: Sequence[str]) -> Floats:
    """``float32[texts, C]``: the network as trained, without quantizing: what the integers are measured against."""
    hashes, starts = hash_strings(texts, network.max_tokens)
    rows = word_rows(hashes, network.word_hashes)
    logits = np.empty((len(texts), len(network.labels)), np.float32)
    for text in range(len(texts)):
        span = slice(starts[text], starts[text + 1])
        pairs = rows_of(pair_hashes(hashes[span]), network.bigram_hashes)
        logits[text] = network.blend * _convolution(network, rows[span])
        logits[text] += (1.0 - network.blend) * _wide(network, rows[span], pairs[pairs >= 0])
    return logits


def _convolution(network: Network, rows: NDArray[np.int64]) -> Floats:
    pooled = []
    for width, filters in zip(network.widths, network.filters, strict=True):
        # A text of n words has max(n, width) - width + 1 windows; only a text shorter than the width sees padding.
        padded = np.concatenate([rows, np.full(max(0, width - len(rows)), PADDING_ROW)])
        windows = len(padded) - width + 1
        sums = sum(network.words[padded[tap : tap + windows]] @ filters[:, tap].T for tap in range(width))
        pooled.append(np.max(sums, axis=0))
    features = np.maximum(np.concatenate(pooled) + network.filter_bias, 0.0)
    result: Floats = network.head @ features + network.head_bias
    return result


def _wide(network: Network, rows: NDArray[np.int64], bigrams: NDArray[np.int64]) -> Floats:
    sums = network.wide_words[rows].sum(axis=0) + network.wide_bigrams[bigrams].sum(axis=0)
    result: Floats = sums / np.float32(np.sqrt(max(len(rows), 1))) + network.wide_bias
    return result
