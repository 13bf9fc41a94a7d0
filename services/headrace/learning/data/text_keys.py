"""What makes two texts the same to training: their words, as the network would see them.

Case, spacing and other separators make no difference, because the network could not tell such texts apart either.

Number equal keys equally, so that counting and comparing them is arithmetic on arrays.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

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


KEY_BYTES = 16
"""How much of a digest tells keys apart: with 10^9 of them two collide with a probability of 10^-21."""


def key_halves(keys: Sequence[bytes]) -> NDArray[np.uint64]:
    """The first 16 bytes of each key, (n, 2); a key that is shorter is padded with zeros."""
    joined = b"".join(key[:KEY_BYTES].ljust(KEY_BYTES, b"\0") for key in keys)
    return np.frombuffer(joined, "<u8").reshape(len(keys), 2)


def number_keys(halves: NDArray[np.uint64]) -> NDArray[np.int64]:
    """(n, 2) keys to (n,) numbers from 0 on, without a gap: equal for equal keys, in the order of the keys."""
    numbers = np.zeros(len(halves), np.int64)
    order = np.lexsort((halves[:, 1], halves[:, 0]))
    ordered = halves[order]
    numbers[order[1:]] = np.cumsum((ordered[1:] != ordered[:-1]).any(axis=1))
    return numbers
