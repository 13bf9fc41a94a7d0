"""Texts composed (NFC), so that a letter and its accent are one character however they were typed.

A word's hash must be the same for ever, and Python's tables are those of its Unicode. Unicode never changes how
characters compose that it had already (its Normalization Stability Policy), so only characters that are newer than the
frozen tables could differ between Pythons. Those are separators there, and what lies between two separators is composed
by itself: no newer character has a say.
"""

from __future__ import annotations

import unicodedata
from functools import cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from headrace.model import characters

_CLASS = np.uint32((1 << characters.CLASS_BITS) - 1)
# UAX 15's Stream-Safe Text Format: no language needs more. Python orders a run of marks in quadratic time.
_MOST_MARKS = 30
# Up to so many characters a run of marks costs less than looking for it.
_SHORT = 512
# Blocks with characters, beside the marks, that NFC spells otherwise or joins with the one before.
_SPELLED_OTHERWISE = (
    (0x0340, 0x0387),
    (0x0900, 0x0FFF),
    (0x1100, 0x11FF),
    (0x1B00, 0x1B4C),
    (0x1F00, 0x1FFF),
    (0x2000, 0x2001),
    (0x2126, 0x212B),
    (0x2329, 0x232A),
    (0x2ADC, 0x2ADC),
    (0xF900, 0xFB4F),
    (0x11000, 0x11FFF),
    (0x1D100, 0x1D1FF),
    (0x2F800, 0x2FA1F),
)


def compose(text: str) -> str:
    """``text`` in NFC; as it is when it has more than 30 marks in a row."""
    if text.isascii() or (len(text) <= _SHORT and unicodedata.is_normalized("NFC", text)):
        return text
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    classes = characters.table()[codes] & _CLASS
    not_marks = np.flatnonzero(np.concatenate([[True], classes != characters.MARK, [True]]))
    if np.diff(not_marks).max() > _MOST_MARKS + 1:
        return text
    borders = np.flatnonzero(np.diff(classes == characters.SEPARATOR)) + 1
    edges = [0, *borders.tolist(), len(text)]
    return "".join(
        part if part.isascii() else unicodedata.normalize("NFC", part)
        for part in (text[first:end] for first, end in pairwise(edges))
    )


@cache
def may_change() -> NDArray[np.bool_]:
    """``bool[TABLE_SIZE]``: whether :func:`compose` may change a text because of a code point. Some say so in vain."""
    flags: NDArray[np.bool_] = (characters.table() & _CLASS) >= characters.MARK
    for first, last in _SPELLED_OTHERWISE:
        flags[first : last + 1] = True
    return flags


def compose_bytes(data: bytes) -> bytes:
    """:func:`compose` of a text in UTF-8; bytes that are none stay as they are."""
    try:
        text = data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return data
    composed = compose(text)
    return data if composed is text else composed.encode("utf-8", "surrogatepass")
