"""The class and the lower case of every Unicode code point, frozen in one file for each text rule so far.

``unicodedata`` differs between Pythons and ``str.lower`` looks at a letter's neighbours, so neither may decide what a
word is: a text must be the same words on every machine for as long as an artifact lives. The tables are therefore a
checked-in file, made by ``tests/support/character_tables.py``, and their SHA-256 is part of every artifact. An artifact
keeps the rule that it was trained by: rule 1 has three classes only, and does not compose texts.

Classes:

- word: letters, numbers and marks of every script, the underscore and the apostrophes ' and U+2019. A run of them is a
  word. Hangul syllables are letters here, because Korean puts spaces between words.
- single: a word of one character. Punctuation and symbols, and the scripts of signs that are written without spaces
  (Han, Hiragana, Katakana, Bopomofo, Yi, Tangut, Nushu, Khitan). The blocks set aside for ideographs and for emoji are
  single as a whole, so that characters of a later Unicode keep their place.
- cluster: a letter of a script of syllables that is written without spaces (Thai, Lao, Khmer, Burmese, Javanese and the
  like, UAX 14's SA and the Brahmic scripts beside it). It begins a word, which its marks end: a grapheme cluster.
- prepend: a vowel that is written before its consonant (Thai, Lao, Tai Viet, New Tai Lue): it begins the word of the
  next cluster.
- mark: joins the word before it; also the vowels of those scripts that are letters by category.
- stacker: a mark by which the next letter is written below the one before (Khmer's coeng): one word.
- dropped: what nobody sees inside a word (soft hyphen, joiners, marks of direction, variation selectors, byte order
  mark). The zero-width space is a border.
- separator: everything else (space, control, surrogate, private, unassigned, and format characters that are seen).
  Tibetan writes a tsheg between its syllables, which is its space.

Lower case is the one-to-one mapping of ``UnicodeData.txt``, code point by code point. Where the full mapping is longer
(only U+0130, capital I with a dot) the simple one stands (i). Capital sigma is always U+03C3, never the final form.
U+2019 maps to ', so that both spellings of "don't" are one word.

Texts are composed first (NFC, :func:`compose`), so that a letter and its accent are one character however they were
typed. There is no NFKC: what it would unite beyond that (full-width letters, ligatures) stays apart here, and training
sees the texts as they come.

A word's hash must be the same for ever, and Python's tables are those of its Unicode. Unicode never changes how
existing characters compose (its Normalization Stability Policy), so only characters that are newer than the
frozen tables could differ between Pythons. Those are separators there, and what lies between two separators is composed
by itself, so a newer character changes nothing.
"""

from __future__ import annotations

import hashlib
import unicodedata
from functools import cache
from importlib import resources
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

SEPARATOR, WORD, SINGLE, CLUSTER, PREPEND, MARK, STACKER, DROPPED = range(8)
CLASS_BITS = 3
LATEST_RULE = 2

CODE_POINTS = 0x110000
# A malformed four-byte sequence decodes to at most 21 bits: with a table that long no lookup leaves it.
TABLE_SIZE = 0x200000

NAMES = ("separator", "word", "single", "cluster", "prepend", "mark", "stacker", "dropped")
_CLASSES = {name: number for number, name in enumerate(NAMES)}


def parse(text: str) -> NDArray[np.uint32]:
    """The packed table of :func:`table` from the text of a table file."""
    classes = np.zeros(TABLE_SIZE, np.uint32)
    lower = np.arange(TABLE_SIZE, dtype=np.int64)
    for line in text.splitlines():
        match line.split():
            case ["lower", first, last, step, shift]:
                lower[int(first, 16) : int(last, 16) + 1 : int(step)] += int(shift)
            case [name, first, last] if name in _CLASSES:
                classes[int(first, 16) : int(last, 16) + 1] = _CLASSES[name]
    packed: NDArray[np.uint32] = (lower.astype(np.uint32) << np.uint32(CLASS_BITS)) | classes
    return packed


@cache
def table(rule: int = LATEST_RULE) -> NDArray[np.uint32]:
    """``uint32[TABLE_SIZE]``: for each code point ``lower << CLASS_BITS | class`` by a text rule, read-only."""
    packed = parse(resources.files(__package__).joinpath(f"characters-{rule}.txt").read_text("utf-8"))
    packed.setflags(write=False)
    return packed


@cache
def digest(rule: int = LATEST_RULE) -> str:
    """The SHA-256 of :func:`table` as little-endian bytes: what an artifact must have been made with."""
    packed = table(rule)
    if rule == 1:
        # Its three classes took two bits, and artifacts name the digest of that.
        packed = (packed >> np.uint32(CLASS_BITS) << np.uint32(2)) | (packed & np.uint32(3))
    return hashlib.sha256(packed.astype("<u4").tobytes()).hexdigest()


_CLASS = np.uint32((1 << CLASS_BITS) - 1)
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
    classes = table()[codes] & _CLASS
    not_marks = np.flatnonzero(np.concatenate([[True], classes != MARK, [True]]))
    if np.diff(not_marks).max() > _MOST_MARKS + 1:
        return text
    borders = np.flatnonzero(np.diff(classes == SEPARATOR)) + 1
    edges = [0, *borders.tolist(), len(text)]
    return "".join(
        part if part.isascii() else unicodedata.normalize("NFC", part)
        for part in (text[first:end] for first, end in pairwise(edges))
    )


@cache
def may_change() -> NDArray[np.bool_]:
    """``bool[TABLE_SIZE]``: whether :func:`compose` may change a text with a code point; for some it never does."""
    flags: NDArray[np.bool_] = (table() & _CLASS) >= MARK
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
