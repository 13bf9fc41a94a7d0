"""Which words and bigrams a network keeps, and which sequences of characters its words are made of.

Subwords: "refund", "refunds" and "refunded" are three words to a table. In training the vector of a word is the sum of
its own row and the rows of its character sequences, so a rare word learns from others. After training the sums are
written into the words' rows, and inference needs no subwords. Source: Bojanowski et al., Enriching Word Vectors with
Subword Information, TACL 2017.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.learning.distributed.collectives import Exchange
from headrace.learning.fit.convolution import WordParts
from headrace.model.network import FIRST_WORD_ROW, adjacent, pair_hashes, rows_of, word_rows
from headrace.model.words import hash_strings, split_words, word_hash


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


# The ends of a word: a beginning or an ending is another part than the same characters in the middle. Neither character
# is ever in a word of more than one.
_BEGIN, _END = "<", ">"
# A part of a single word says no more than the word's own row.
_LEAST_WORDS = 2


def spelled(texts: Sequence[str], hashed: HashedTexts, kept: NDArray[np.uint64], exchange: Exchange) -> tuple[str, ...]:
    """How each of the words ``kept`` uint64[V] is written, in the texts of all ranks.

    ``texts`` are this rank's and ``hashed`` their hashes.
    """
    hashes, firsts = np.unique(hashed.hashes, return_index=True)
    firsts = np.sort(firsts[rows_of(hashes, kept) >= 0])
    # Few texts bring a new word, so few have to be cut into words by this slow way.
    owners = np.searchsorted(hashed.starts, firsts, side="right") - 1
    texts_with, begins = np.unique(owners, return_index=True)
    own = set[str]()
    for owner, places in zip(texts_with.tolist(), np.split(firsts, begins)[1:], strict=True):
        begin, end = hashed.starts[owner], hashed.starts[owner + 1]
        words = split_words(texts[owner], int(end - begin))
        own.update(words[place - begin] for place in places)
    everyone = sorted(set[str]().union(*exchange.gather(own, set[str])))
    # Not as a text: what is left of a word without its unseen characters would be composed once more.
    found = rows_of(np.array([word_hash(word) for word in everyone], np.uint64), kept)
    written = [""] * len(kept)
    for place, word in zip(found, everyone, strict=True):
        written[place] = word
    return tuple(written)


def word_parts(words: Sequence[str], *, least: int, most: int) -> WordParts:
    """The sequences of ``least`` to ``most`` characters that at least two of ``words`` have, their ends included.

    A word of less than three characters has none.
    """
    parts_of = [_parts(word, least, most) for word in words]
    counts = Counter(part for parts in parts_of for part in parts)
    places = {
        part: place for place, part in enumerate(sorted(p for p, count in counts.items() if count >= _LEAST_WORDS))
    }
    found = [sorted(places[part] for part in parts if part in places) for parts in parts_of]
    starts = np.zeros(FIRST_WORD_ROW + len(words) + 1, np.int64)
    np.cumsum([len(parts) for parts in found], out=starts[FIRST_WORD_ROW + 1 :])
    return WordParts(np.array([place for parts in found for place in parts], np.int64), starts, len(places))


def _parts(word: str, least: int, most: int) -> set[str]:
    if len(word) < 3:
        return set()
    framed = _BEGIN + word + _END
    lengths = range(least, min(most, len(framed) - 1) + 1)
    return {framed[first : first + length] for length in lengths for first in range(len(framed) - length + 1)}


Embed = Callable[[Sequence[str]], NDArray[np.floating]]
"""A teacher's view of texts: ``[texts, d]``, near each other for texts of like meaning."""


def seen_vectors(
    words: Sequence[str], embed: Embed, dimensions: int, scale: float, exchange: Exchange
) -> NDArray[np.float32]:
    """``float32[V, dimensions]`` for ``words`` as a teacher sees each as a text of its own; zero for "".

    Their first principal components (Hotelling 1933), so that as much of what tells words apart is kept as so many
    dimensions hold, with the mean deviation ``scale``. Rank 0 computes them for all ranks.
    """
    found = np.zeros((len(words), dimensions), np.float32)
    written = [place for place, word in enumerate(words) if word]
    if exchange.rank == 0 and written:
        views = np.asarray(embed([words[place] for place in written]), np.float64)
        views -= views.mean(axis=0)
        # Of the largest variance first; eigh sorts them by rising one.
        _, vectors = np.linalg.eigh(views.T @ views)
        projected = views @ vectors[:, ::-1][:, :dimensions]
        projected *= scale / max(float(np.sqrt((projected**2).mean())), 1e-12)
        found[written, : projected.shape[1]] = projected
    return exchange.gather(found, NDArray[np.float32])[0]
