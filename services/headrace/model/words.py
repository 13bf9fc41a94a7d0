"""What a word is and what its hash is, defined plainly: the reference that the kernels are held to.

A text is composed, and cut into words by the classes of :mod:`headrace.model.characters`: a run of word characters is a
word, each single character is a word, each cluster is one with its marks, separators are dropped. Words are lower-cased
code point by code point.
"""

from __future__ import annotations

import numpy as np

from headrace.model import characters
from headrace.model.characters import compose

# FNV-1a's basis and prime (Fowler, Noll, Vo), taken over code points instead of bytes so that a Chinese character is
# one step; MurmurHash3's finalizer (Appleby) spreads the result, because the lookup takes its top bits.
FNV_BASIS = 0xCBF29CE484222325
FNV_PRIME = 0x100000001B3
MIX_FIRST = 0xFF51AFD7ED558CCD
MIX_SECOND = 0xC4CEB9FE1A85EC53
# 2^64 divided by the golden ratio, odd: makes the bigram's hash depend on the order of its words.
BIGRAM_FACTOR = 0x9E3779B97F4A7C15
# Part of every artifact. Change it when any constant or step here changes.
HASHING = "fnv1a-code-points+fmix64/2"
RULES = {"fnv1a-code-points+fmix64/1": 1, HASHING: characters.LATEST_RULE}
"""Every hashing that artifacts were made by, and the text rule, the number of its character tables."""
COMPOSING_RULES = frozenset((2,))

_MASK = (1 << 64) - 1


def split_words(text: str, max_tokens: int | None = None, hashing: str = HASHING) -> list[str]:
    """The first ``max_tokens`` words of ``text`` (None: all), lower-cased, as ``hashing`` cuts them."""
    rule = RULES[hashing]
    table = characters.table(rule)
    words: list[str] = []
    run = ""
    in_cluster = joins_next = False
    composed = compose(text) if rule in COMPOSING_RULES else text
    most = len(composed) if max_tokens is None else max_tokens
    for character in composed:
        if len(words) >= most:
            break  # of a long text most is never looked at
        entry = int(table[ord(character)])
        kind, lower = entry & 7, chr(entry >> characters.CLASS_BITS)
        if kind == characters.DROPPED:
            continue
        if kind == characters.CLUSTER and joins_next:
            run, joins_next = run + lower, False
            continue
        if kind in {characters.MARK, characters.STACKER} or (kind == characters.WORD and not in_cluster):
            run += lower
            joins_next |= in_cluster and kind == characters.STACKER
            continue
        if run:
            words.append(run)
        in_cluster = kind in {characters.CLUSTER, characters.PREPEND}
        joins_next = kind == characters.PREPEND
        run = lower if in_cluster or kind == characters.WORD else ""
        if kind == characters.SINGLE:
            words.append(lower)
    if run:
        words.append(run)
    return words[:most]


def mix(value: int) -> int:
    """MurmurHash3's 64-bit finalizer: a bijection of 64-bit integers in which each bit depends on all."""
    value = ((value ^ (value >> 33)) * MIX_FIRST) & _MASK
    value = ((value ^ (value >> 33)) * MIX_SECOND) & _MASK
    return value ^ (value >> 33)


def word_hash(word: str) -> int:
    """The 64-bit hash of a word as :func:`split_words` returns it."""
    value = FNV_BASIS
    for character in word:
        value = ((value ^ ord(character)) * FNV_PRIME) & _MASK
    return mix(value)


def bigram_hash(first: int, second: int) -> int:
    """The 64-bit hash of two adjacent words from their hashes; the order counts."""
    return mix((first * BIGRAM_FACTOR + second) & _MASK)


def hash_words(text: str, max_tokens: int, hashing: str = HASHING) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """``uint64[n]``: the hashes of the first ``max_tokens`` words of ``text``."""
    return np.array([word_hash(word) for word in split_words(text, max_tokens, hashing)], np.uint64)
