"""What makes two texts the same to training: their words, as the network would see them.

Case, spacing and other separators make no difference, because the network could not tell such texts apart either.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from types import MappingProxyType

import numpy as np

from headrace.model.hashing import hash_strings
from headrace.model.words import HASHING, RULES

# Longer than any text that the wire takes, so the key covers the whole text and not only what a network reads of it.
_ALL_WORDS = 2**31 - 1
NO_WORDS = b""


def text_keys(texts: Sequence[str], hashing: str = HASHING) -> list[bytes]:
    """A key of 32 bytes for each text: equal for texts of equal words, :data:`NO_WORDS` for a text without words.

    The key is the SHA-256 of the text's word hashes in order, little-endian, so it is the same in every run, on every
    Python and machine, by one of :data:`HASHINGS`. Raises KeyError for a ``hashing`` that is none of them.
    """
    return HASHINGS[hashing](texts)


def _keys_of_words(texts: Sequence[str], hashing: str) -> list[bytes]:
    hashes, starts = hash_strings(texts, _ALL_WORDS, hashing)
    portable = hashes.astype("<u8")
    return [_key(portable[first:end]) for first, end in pairwise(starts)]


def _key(words: np.ndarray[tuple[int], np.dtype[np.uint64]]) -> bytes:
    return hashlib.sha256(words.tobytes()).digest() if len(words) else NO_WORDS


HASHINGS: Mapping[str, Callable[[Sequence[str]], list[bytes]]] = MappingProxyType(
    {hashing: partial(_keys_of_words, hashing=hashing) for hashing in RULES}
)
"""Every hashing that has made keys of texts, by its name in :mod:`headrace.model.words`, and how it makes them.

One that is replaced stays here: ids of labels and the splits of versions were made by it.
"""
