"""How the frozen tables of :mod:`headrace.model.characters` were made: the class of each code point from its category.

Run ``python -m tests.support.character_tables`` to print the file of the latest rule.
"""

import unicodedata

from headrace.model.characters import (
    CLUSTER,
    CODE_POINTS,
    DROPPED,
    MARK,
    NAMES,
    PREPEND,
    SEPARATOR,
    SINGLE,
    STACKER,
    WORD,
)

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

    Another Unicode version gives other tables. A file that a release has had never changes, because artifacts were made
    by it: other tables are another rule.
    """
    lines = [
        f"# Unicode {unicodedata.unidata_version}. Generated by tests.support.character_tables; do not edit.",
        "# CLASS FIRST LAST: the class of a range, all others are separators.",
        "# lower FIRST LAST STEP SHIFT: the lower case of every STEP-th code point is SHIFT further.",
    ]
    classes = [_class_of(code) for code in range(CODE_POINTS)]
    first = 0
    for code in range(1, CODE_POINTS + 1):
        if code == CODE_POINTS or classes[code] != classes[first]:
            if classes[first] != SEPARATOR:
                lines.append(f"{NAMES[classes[first]]} {first:04X} {code - 1:04X}")
            first = code
    shifts = [(code, _lower_of(code) - code) for code in range(CODE_POINTS) if _lower_of(code) != code]
    lines += [f"lower {first:04X} {last:04X} {step} {shift:+d}" for first, last, step, shift in _runs(shifts)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(generate(), end="")  # noqa: T201 - printing the file is what running this module is for
