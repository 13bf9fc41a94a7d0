"""What the kept words have in common: the sequences of characters by which a rare word learns from others.

"refund", "refunds" and "refunded" are three words to a table. In training each is the sum of its own row and the rows
of its parts; afterwards the sums are written into the words' rows, so that answering knows nothing of parts. Source:
Bojanowski et al., Enriching Word Vectors with Subword Information, TACL 2017.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from headrace.learning.data.vocabulary import HashedTexts
from headrace.learning.distributed.collectives import Exchange
from headrace.model.network import FIRST_WORD_ROW, rows_of
from headrace.model.textcnn import WordParts
from headrace.model.words import split_words, word_hash

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
