"""What a word is and what its hash is: once defined plainly in Python, and once compiled for speed.

A text is composed, and cut into words by the classes of :mod:`headrace.model.characters`: a run of word characters is a
word, each single character is a word, each cluster is one with its marks, separators are dropped. Words are lower-cased
code point by code point.

:func:`find_words` and :func:`word_hash` are the definition. :func:`hash_texts` computes the same from UTF-8 without
the GIL; tests hold the two together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from headrace.model import characters
from headrace.model.characters import compose, compose_bytes, may_change
from headrace.model.compiling import kernel

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
"""Every hashing that an artifact may name, with its text rule: the number of its character tables."""
COMPOSING_RULES = frozenset((2,))

_MASK = (1 << 64) - 1


class Word(NamedTuple):
    """A lower-cased word, and the code points ``begin`` to ``end`` (not included) of the composed text it stands at."""

    word: str
    begin: int
    end: int


def find_words(text: str, max_tokens: int | None = None, hashing: str = HASHING) -> list[Word]:
    """The first ``max_tokens`` words of ``text`` (None: all) and their places, as ``hashing`` cuts them."""
    rule = RULES[hashing]
    table = characters.table(rule)
    words: list[Word] = []
    run = ""
    begin = end = 0
    in_cluster = joins_next = False
    composed = compose(text) if rule in COMPOSING_RULES else text
    most = len(composed) if max_tokens is None else max_tokens
    for place, character in enumerate(composed):
        if len(words) >= most:
            break  # of a long text most is never looked at
        entry = int(table[ord(character)])
        kind, lower = entry & 7, chr(entry >> characters.CLASS_BITS)
        if kind == characters.DROPPED:
            continue
        if kind == characters.CLUSTER and joins_next:
            run, end, joins_next = run + lower, place + 1, False
            continue
        if kind in {characters.MARK, characters.STACKER} or (kind == characters.WORD and not in_cluster):
            if not run:
                begin = place
            run, end = run + lower, place + 1
            joins_next |= in_cluster and kind == characters.STACKER
            continue
        if run:
            words.append(Word(run, begin, end))
        in_cluster = kind in {characters.CLUSTER, characters.PREPEND}
        joins_next = kind == characters.PREPEND
        run = lower if in_cluster or kind == characters.WORD else ""
        begin, end = place, place + 1
        if kind == characters.SINGLE:
            words.append(Word(lower, begin, end))
    if run:
        words.append(Word(run, begin, end))
    return words[:most]


def split_words(text: str, max_tokens: int | None = None, hashing: str = HASHING) -> list[str]:
    """The words of :func:`find_words` without their places."""
    return [found.word for found in find_words(text, max_tokens, hashing)]


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


_BASIS = np.uint64(FNV_BASIS)
_PRIME = np.uint64(FNV_PRIME)
_MIX_FIRST = np.uint64(MIX_FIRST)
_MIX_SECOND = np.uint64(MIX_SECOND)
_BIGRAM = np.uint64(BIGRAM_FACTOR)
_SHIFT = np.uint64(33)
_CLASS_BITS = np.uint32(characters.CLASS_BITS)
_CLASS = np.uint32((1 << characters.CLASS_BITS) - 1)
_SEPARATOR = np.uint32(characters.SEPARATOR)
_WORD = np.uint32(characters.WORD)
_SINGLE = np.uint32(characters.SINGLE)
_CLUSTER = np.uint32(characters.CLUSTER)
# The classes from here on join the word before them, or are dropped.
_MARK = np.uint32(characters.MARK)
_STACKER = np.uint32(characters.STACKER)
_DROPPED = np.uint32(characters.DROPPED)
# What the word being read is: none, letters, a cluster, or a cluster that the next letter of its script joins.
_NO_RUN, _LETTERS, _CLUSTERED, _JOINING = 0, 1, 2, 3


@kernel(inline=True)
def mix_hash(value):  # type: ignore[no-untyped-def]
    """MurmurHash3's 64-bit finalizer (see :func:`headrace.model.words.mix`)."""
    value = (value ^ (value >> _SHIFT)) * _MIX_FIRST
    value = (value ^ (value >> _SHIFT)) * _MIX_SECOND
    return value ^ (value >> _SHIFT)


@kernel(inline=True)
def bigram(first, second):  # type: ignore[no-untyped-def]
    """The hash of two adjacent words from their ``uint64`` hashes."""
    return mix_hash(first * _BIGRAM + second)


@kernel(inline=True)
def _decode(data, i, end):  # type: ignore[no-untyped-def]
    """The code point at ``data[i]`` and where the next begins; a sequence cut off by ``end`` is NUL, a separator."""
    byte = np.uint32(data[i])
    after = i + np.uint64(1)
    code = byte
    if byte >= np.uint32(0x80):
        if byte < np.uint32(0xE0):
            after = i + np.uint64(2)
            code = byte & np.uint32(0x1F)
        elif byte < np.uint32(0xF0):
            after = i + np.uint64(3)
            code = byte & np.uint32(0x0F)
        else:
            after = i + np.uint64(4)
            code = byte & np.uint32(0x07)
        if after > end:
            return np.uint32(0), end
        for at in range(i + np.uint64(1), after):
            code = (code << np.uint32(6)) | (np.uint32(data[at]) & np.uint32(0x3F))
    return code, after


@kernel
def hash_text(data, start, end, table, out, at, max_tokens):  # type: ignore[no-untyped-def]  # noqa: C901, PLR0912 - one loop
    """Write the hashes of the words of ``data[start:end]`` (UTF-8) to ``out[at:]``, at most ``max_tokens``.

    Returns how many. Malformed UTF-8 gives some words or other, never an access outside ``data[start:end]``.
    """
    # Unsigned indexes: numba would otherwise test each for being negative.
    i = np.uint64(start)
    end = np.uint64(end)
    out_at = np.uint64(at)
    stop = np.uint64(at + max_tokens)
    run = _BASIS
    state = _NO_RUN
    one = np.uint64(1)
    while i < end and out_at < stop:
        code, i = _decode(data, i, end)
        entry = table[code]
        kind = entry & _CLASS
        lower = np.uint64(entry >> _CLASS_BITS)
        if kind == _WORD and state <= _LETTERS:
            run = (run ^ lower) * _PRIME
            state = _LETTERS
            # Most characters of most texts are letters of one byte, which need fewer tests.
            while i < end and data[i] < np.uint8(0x80):
                entry = table[data[i]]
                if entry & _CLASS != _WORD:
                    break
                run = (run ^ np.uint64(entry >> _CLASS_BITS)) * _PRIME
                i += one
            continue
        if kind >= _MARK or (kind == _CLUSTER and state == _JOINING):
            if kind != _DROPPED:
                run = (run ^ lower) * _PRIME
                if kind == _CLUSTER:
                    state = _CLUSTERED
                elif state == _NO_RUN:
                    state = _LETTERS
                elif kind == _STACKER and state == _CLUSTERED:
                    state = _JOINING
            continue
        if state != _NO_RUN:
            out[out_at] = mix_hash(run)
            out_at += one
            run = _BASIS
            state = _NO_RUN
        if kind == _SINGLE:
            if out_at < stop:
                out[out_at] = mix_hash((_BASIS ^ lower) * _PRIME)
                out_at += one
        elif kind != _SEPARATOR:
            run = (_BASIS ^ lower) * _PRIME
            state = _LETTERS if kind == _WORD else _CLUSTERED if kind == _CLUSTER else _JOINING
    if state != _NO_RUN and out_at < stop:
        out[out_at] = mix_hash(run)
        out_at += one
    return np.int64(out_at) - at


@kernel
def _hash_texts(data, offsets, table, max_tokens, out, starts):  # type: ignore[no-untyped-def]
    at = np.int64(0)
    starts[0] = 0
    for text in range(len(offsets) - 1):
        at += hash_text(data, offsets[text], offsets[text + 1], table, out, at, max_tokens)
        starts[text + 1] = at


def hash_texts(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], max_tokens: int, hashing: str = HASHING
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The word hashes of texts that lie end to end in ``data``, as :func:`join_texts` lays them.

    Text i is ``data[offsets[i]:offsets[i + 1]]``, UTF-8.

    Returns ``(hashes uint64[words], starts int64[texts + 1])``: text i has ``hashes[starts[i]:starts[i + 1]]``, at most
    ``max_tokens`` of them.
    """
    # A word takes at least one byte, so no text has more words than bytes.
    room = int(np.minimum(np.diff(offsets), max_tokens).sum())
    hashes = np.empty(room, np.uint64)
    starts = np.empty(len(offsets), np.int64)
    _hash_texts(data, offsets, characters.table(RULES[hashing]), max_tokens, hashes, starts)
    return hashes[: starts[-1]].copy(), starts


def join_texts(texts: Sequence[bytes], hashing: str = HASHING) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Lay texts end to end, composed where ``hashing`` asks for it: ``(data uint8[bytes], offsets int64[texts + 1])``.

    ``data`` is read-only.
    """
    data, offsets = _joined(texts)
    if RULES[hashing] not in COMPOSING_RULES or data.tobytes().isascii():
        return data, offsets
    may = np.empty(len(texts), np.bool_)
    _find_marks(data, offsets, may_change(), may)
    if not may.any():
        return data, offsets
    return _joined([compose_bytes(text) if found else text for text, found in zip(texts, may.tolist(), strict=True)])


class Texts(Sequence[bytes]):
    """Texts that lie end to end in ``data`` (uint8, UTF-8): text i is ``data[offsets[i]:offsets[i + 1]]``.

    ``offsets`` is int64[n + 1]. ``data`` becomes read-only.
    """

    __slots__ = ("data", "offsets")

    def __init__(self, data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> None:
        data.setflags(write=False)
        self.data = data
        self.offsets = offsets

    @classmethod
    def of(cls, texts: Sequence[bytes]) -> Texts:
        return cls(*_joined(texts))

    def lengths(self) -> NDArray[np.int64]:
        """The bytes of each text."""
        return np.diff(self.offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, place: int) -> bytes: ...
    @overload
    def __getitem__(self, place: slice) -> list[bytes]: ...
    def __getitem__(self, place: int | slice) -> bytes | list[bytes]:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        place = range(len(self))[place]
        return self.data[self.offsets[place] : self.offsets[place + 1]].tobytes()


def _joined(texts: Sequence[bytes]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    if isinstance(texts, Texts):
        return texts.data, texts.offsets
    offsets = np.zeros(len(texts) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)), out=offsets[1:])
    return np.frombuffer(b"".join(texts), np.uint8), offsets


@kernel
def _find_marks(data, offsets, flags, found):  # type: ignore[no-untyped-def]
    """Write to ``found`` whether each text has a code point with a flag."""
    for text in range(len(found)):
        i = np.uint64(offsets[text])
        end = np.uint64(offsets[text + 1])
        has = False
        while i < end and not has:
            if data[i] < np.uint8(0x80):
                i += np.uint64(1)
                continue
            code, i = _decode(data, i, end)
            has = flags[code]
        found[text] = has


def hash_strings(
    texts: Sequence[str], max_tokens: int, hashing: str = HASHING
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """:func:`hash_texts` of strings. A lone surrogate, which UTF-8 has no place for, is a separator."""
    data, offsets = join_texts([text.encode("utf-8", "surrogatepass") for text in texts], hashing)
    return hash_texts(data, offsets, max_tokens, hashing)
