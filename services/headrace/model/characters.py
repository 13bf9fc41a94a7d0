"""The class and the lower case of every Unicode code point, frozen in one file for each text rule that there was.

``unicodedata`` differs between Pythons and ``str.lower`` looks at a letter's neighbours, so neither may decide what a
word is: a text must be the same words on every machine for as long as an artifact lives. The tables are therefore a
checked-in file, and their SHA-256 is part of every artifact. An artifact keeps the rule that it was trained by: rule 1
has three classes only, and does not compose texts.

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

Texts are composed before (:mod:`headrace.model.characters`). There is no NFKC: what it would unite beyond that
(full-width letters, ligatures) stays apart here, and training sees the texts as they come.

Texts composed (NFC), so that a letter and its accent are one character however they were typed.

A word's hash must be the same for ever, and Python's tables are those of its Unicode. Unicode never changes how
characters compose that it had already (its Normalization Stability Policy), so only characters that are newer than the
frozen tables could differ between Pythons. Those are separators there, and what lies between two separators is composed
by itself: no newer character has a say.
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

_NAMES = ("separator", "word", "single", "cluster", "prepend", "mark", "stacker", "dropped")
_CLASSES = {name: number for number, name in enumerate(_NAMES)}
_EXTRA_WORD = frozenset("_'\u2019")
# Han, Hiragana and Katakana with their iteration and length marks, and the blocks set aside for emoji.
_SINGLE_BLOCKS = (
    (0x3005, 0x3007),
    (0x3021, 0x3029),
    (0x3031, 0x3035),
    (0x3038, 0x303C),
    (0x3041, 0x3096),
    (0x309D, 0x309F),
    (0x30A1, 0x30FA),
    (0x30FC, 0x30FF),
    (0x3105, 0x312F),
    (0x31A0, 0x31BF),
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xA000, 0xA48C),
    (0xF900, 0xFAFF),
    (0xFF66, 0xFF9F),
    (0x17000, 0x18AFF),
    (0x18B00, 0x18CD5),
    (0x18D00, 0x18D08),
    (0x1AFF0, 0x1B16F),
    (0x1B170, 0x1B2FB),
    (0x1F000, 0x1FAFF),
    (0x20000, 0x2FFFD),
    (0x30000, 0x3FFFD),
)
# Thai, Lao, Burmese, Khmer, Batak, Tai Le, New Tai Lue, Tai Tham, Balinese, Javanese, Burmese's extensions, Cham, Tai
# Viet, Brahmi, Grantha, Ahom, Dives Akuru, Makasar.
_CLUSTER_BLOCKS = (
    (0x0E00, 0x0E7F),
    (0x0E80, 0x0EFF),
    (0x1000, 0x109F),
    (0x1780, 0x17DD),
    (0x1950, 0x197F),
    (0x1980, 0x19DF),
    (0x1A20, 0x1AAF),
    (0x1B00, 0x1B4C),
    (0x1BC0, 0x1BF3),
    (0xA980, 0xA9DF),
    (0xA9E0, 0xA9FF),
    (0xAA00, 0xAA4D),
    (0xAA60, 0xAADF),
    (0x11000, 0x11075),
    (0x11300, 0x1137F),
    (0x11700, 0x1174F),
    (0x11900, 0x11959),
    (0x11EE0, 0x11EF6),
)
# Logical_Order_Exception of Unicode.
_PREPENDED = (
    (0x0E40, 0x0E44),
    (0x0EC0, 0x0EC4),
    (0x19B5, 0x19B7),
    (0x19BA, 0x19BA),
    (0xAAB5, 0xAAB6),
    (0xAAB9, 0xAAB9),
    (0xAABB, 0xAABC),
)
# Vowels and tones behind their consonant that are letters by category.
_LETTERS_THAT_FOLLOW = (
    (0x0E30, 0x0E30),
    (0x0E32, 0x0E33),
    (0x0E45, 0x0E45),
    (0x0EB0, 0x0EB0),
    (0x0EB2, 0x0EB3),
    (0x1963, 0x1974),
    (0x19B0, 0x19C0),
    (0x19C8, 0x19C9),
    (0xAAB1, 0xAAB1),
    (0xAABA, 0xAABA),
    (0xAABD, 0xAABD),
    (0xAAC0, 0xAAC0),
    (0xAAC2, 0xAAC2),
)
_STACKERS = frozenset((0x1039, 0x17D2, 0x1A60, 0x1B44, 0xA9C0, 0x11046, 0x1134D, 0x1193E))
_BORDERS = frozenset((0x200B, 0x0F0B, 0x0F0C))
# Format characters that are seen: signs of numbers and verses, and those around annotations.
_SEEN = (
    (0x0600, 0x0605),
    (0x06DD, 0x06DD),
    (0x070F, 0x070F),
    (0x0890, 0x0891),
    (0x08E2, 0x08E2),
    (0x110BD, 0x110BD),
    (0x110CD, 0x110CD),
    (0xFFF9, 0xFFFB),
)
# Those that Unicode calls ignorable and has in other categories than format.
_IGNORABLE = (
    (0x034F, 0x034F),
    (0x115F, 0x1160),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0x3164, 0x3164),
    (0xFE00, 0xFE0F),
    (0xFFA0, 0xFFA0),
    (0xE0000, 0xE0FFF),
)


def _is_in(code: int, ranges: tuple[tuple[int, int], ...]) -> bool:
    return any(first <= code <= last for first, last in ranges)


def _class_of(code: int) -> int:  # noqa: PLR0911 - a table of cases, the first that fits
    character = chr(code)
    category = unicodedata.category(character)
    if character in _EXTRA_WORD:
        return WORD
    if code in _BORDERS or _is_in(code, _SEEN):
        return SEPARATOR
    if category == "Cf" or _is_in(code, _IGNORABLE):
        return DROPPED
    if _is_in(code, _SINGLE_BLOCKS):
        return SINGLE
    if code in _STACKERS:
        return STACKER
    if _is_in(code, _PREPENDED):
        return PREPEND
    if category[0] == "M" or _is_in(code, _LETTERS_THAT_FOLLOW):
        return MARK
    if category[0] == "L" and _is_in(code, _CLUSTER_BLOCKS):
        return CLUSTER
    if category[0] in "LN":
        return WORD
    return SINGLE if category[0] in "PS" else SEPARATOR


def _lower_of(code: int) -> int:
    if code == 0x2019:
        return ord("'")
    # Of the full mappings only that of U+0130 is longer than one, and it begins with the simple one.
    return ord(chr(code).lower()[0])


def _runs(steps: list[tuple[int, int]]) -> list[tuple[int, int, int, int]]:
    """Gather (code, shift) pairs into runs (first, last, step, shift) of one shift, with a step of 1 or 2."""
    runs: list[tuple[int, int, int, int]] = []
    for code, shift in steps:
        if runs:
            first, last, step, run_shift = runs[-1]
            gap = code - last
            if shift == run_shift and (gap == step or (first == last and gap in {1, 2})):
                runs[-1] = (first, code, gap, shift)
                continue
        runs.append((code, code, 1, shift))
    return runs


def generate() -> str:
    """The text of the latest rule's file from this Python's ``unicodedata``.

    Run ``python -m headrace.model.characters`` to print it. Another Unicode version gives other tables. A file
    that a release has had never changes, because artifacts were made by it: other tables are another rule.
    """
    lines = [
        f"# Unicode {unicodedata.unidata_version}. Generated by headrace.model.characters.generate; do not edit.",
        "# CLASS FIRST LAST: the class of a range, all others are separators.",
        "# lower FIRST LAST STEP SHIFT: the lower case of every STEP-th code point is SHIFT further.",
    ]
    classes = [_class_of(code) for code in range(CODE_POINTS)]
    first = 0
    for code in range(1, CODE_POINTS + 1):
        if code == CODE_POINTS or classes[code] != classes[first]:
            if classes[first] != SEPARATOR:
                lines.append(f"{_NAMES[classes[first]]} {first:04X} {code - 1:04X}")
            first = code
    shifts = [(code, _lower_of(code) - code) for code in range(CODE_POINTS) if _lower_of(code) != code]
    lines += [f"lower {first:04X} {last:04X} {step} {shift:+d}" for first, last, step, shift in _runs(shifts)]
    return "\n".join(lines) + "\n"


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


if __name__ == "__main__":
    print(generate(), end="")  # noqa: T201 - printing the file is what running this module is for


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
    """``bool[TABLE_SIZE]``: whether :func:`compose` may change a text because of a code point. Some say so in vain."""
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
