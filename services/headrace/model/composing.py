"""Texts composed (NFC), so that a letter and its accent are one character however they were typed.

A word's hash must be the same for ever, and Python's tables are those of its Unicode. Unicode never changes how
characters compose that it had already (its Normalization Stability Policy), so only characters that are newer than the
frozen tables could differ between Pythons. Those are separators there, and what lies between two separators is composed
by itself: no newer character has a say.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from headrace.model import characters

_CLASS = np.uint32((1 << characters.CLASS_BITS) - 1)
# In UTF-8 what may not be composed: marks, what joins the character before it, and what is spelled otherwise in NFC. It
# finds too much (all of Hebrew, Arabic, Indic), never too little, and passes over Latin, Cyrillic, Han and Kana.
_MAY_CHANGE = re.compile(
    rb"[\xcc-\xce\xd2\xd6-\xdf\xe0\xe1]"
    rb"|\xe2(?:\x80[\x80\x81]|[\x83\x84\x8c\xab\xb3\xb5\xb7])"
    rb"|\xe3(?:\x80[\xaa-\xaf]|\x82[\x99\x9a])"
    rb"|\xea[\x99-\xaf]|\xef[\xa4-\xb9]|\xf0[^\x9f]|[\xf1-\xf4]",
    re.DOTALL,
)
# UAX 15's Stream-Safe Text Format: no language needs more. Python orders a run of marks in quadratic time.
_MOST_MARKS = 30
# Up to so many characters a run of marks costs less than looking for it.
_SHORT = 512


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


def compose_all(texts: Sequence[bytes]) -> Sequence[bytes]:
    """:func:`compose` of texts in UTF-8; bytes that are none stay as they are."""
    if all(map(bytes.isascii, texts)):
        return texts
    return [text if text.isascii() or not _MAY_CHANGE.search(text) else _composed(text) for text in texts]


def _composed(data: bytes) -> bytes:
    try:
        text = data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return data
    composed = compose(text)
    return data if composed is text else composed.encode("utf-8", "surrogatepass")
