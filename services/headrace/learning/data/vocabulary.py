"""Which words and bigrams a network keeps, and texts as rows of its tables."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.learning.distributed.collectives import Exchange
from headrace.model.hashing import hash_strings
from headrace.model.network import FIRST_WORD_ROW, pair_hashes, word_rows
from headrace.model.wide import adjacent


class HashedTexts(msgspec.Struct, frozen=True):
    """Texts end to end: text i has the words ``hashes[starts[i]:starts[i + 1]]``, uint64[words], int64[texts + 1]."""

    hashes: NDArray[np.uint64]
    starts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def rows(self, kept: NDArray[np.uint64]) -> list[NDArray[np.int64]]:
        """Each text's words as rows of the tables of the words ``kept``."""
        return np.split(word_rows(self.hashes, kept), self.starts[1:-1]) if len(self) else []


def hash_all(texts: Sequence[str], max_tokens: int) -> HashedTexts:
    """The word hashes of ``texts``, each cut to ``max_tokens`` words."""
    return HashedTexts(*hash_strings(texts, max_tokens))


class Vocabulary(msgspec.Struct, frozen=True):
    """What a network keeps: ``words`` uint64[V] and ``bigrams`` uint64[B], each by falling count in training."""

    words: NDArray[np.uint64]
    bigrams: NDArray[np.uint64]

    @property
    def columns(self) -> int:
        """Rows of words (padding and unknown included) and bigrams: V + 2 + B."""
        return FIRST_WORD_ROW + len(self.words) + len(self.bigrams)


def choose_vocabulary(
    texts: HashedTexts,
    exchange: Exchange,
    *,
    max_words: int,
    max_bigrams: int,
    least_bigram_count: int,
    max_columns: int | None = None,
) -> Vocabulary:
    """The most frequent words and pairs of neighbours of all ranks' ``texts``; of equal counts the lower hash first.

    With ``max_columns`` no more are kept than fit these columns, words before pairs; one word always.
    """
    pairs = pair_hashes(texts.hashes)[adjacent(texts.starts)]
    words = _most_frequent(texts.hashes, exchange, max_words, least_count=1)
    bigrams = _most_frequent(pairs, exchange, max_bigrams, least_bigram_count)
    if max_columns is not None:
        words = words[: max(1, max_columns - FIRST_WORD_ROW)]
        bigrams = bigrams[: max(0, max_columns - FIRST_WORD_ROW - len(words))]
    return Vocabulary(words=words, bigrams=bigrams)


def _most_frequent(hashes: NDArray[np.uint64], exchange: Exchange, most: int, least_count: int) -> NDArray[np.uint64]:
    own = np.unique(hashes, return_counts=True)
    shares = exchange.gather(own, tuple[NDArray[np.uint64], NDArray[np.int64]])
    values, places = np.unique(np.concatenate([found for found, _ in shares]), return_inverse=True)
    counts = np.bincount(places, np.concatenate([count for _, count in shares]), len(values))
    values, counts = values[counts >= least_count], counts[counts >= least_count]
    # Stable, and unique() sorted by hash: so the order is the same on every machine.
    kept: NDArray[np.uint64] = values[np.argsort(-counts, kind="stable")[:most]]
    return kept
