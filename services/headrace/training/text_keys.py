"""What makes two texts the same to training: their words, as the network would see them.

Case, spacing and other separators make no difference, because the network could not tell such texts apart either.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from headrace.model.hashing import hash_strings

# Longer than any text that the wire takes, so the key covers the whole text and not only what a network reads of it.
_ALL_WORDS = 2**31 - 1
NO_WORDS = b""


def text_keys(texts: Sequence[str]) -> list[bytes]:
    """A key of 32 bytes for each text: equal for texts of equal words, :data:`NO_WORDS` for a text without words.

    The key is the SHA-256 of the text's word hashes in order, little-endian, so it is the same in every run, on every
    Python and machine, for as long as :data:`headrace.model.words.HASHING` stands.
    """
    hashes, starts = hash_strings(texts, _ALL_WORDS)
    portable = hashes.astype("<u8")
    return [_key(portable[first:end]) for first, end in pairwise(starts)]


def _key(words: np.ndarray[tuple[int], np.dtype[np.uint64]]) -> bytes:
    return hashlib.sha256(words.tobytes()).digest() if len(words) else NO_WORDS
