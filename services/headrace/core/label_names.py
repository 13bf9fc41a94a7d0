"""The one spelling of a label's name: wherever names come in or are compared, :func:`label_name` cleans them."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

# What stands at a name's ends by accident of copying and is not seen: zero-width space, marks of direction, word
# joiner, soft hyphen, byte order mark. Inside a name they stay, and so do the joiners, which choose letters.
_UNSEEN = frozenset(
    "\u00ad\u061c\u180e\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff"
)
_BOOLEANS = {word: lower for lower in ("true", "false") for word in (lower, lower.capitalize(), lower.upper())}


def label_name(name: str) -> str:
    """``name`` composed (NFC), without the blanks and unseen characters at its ends; empty when nothing is left.

    The booleans are `true` and `false`, also where a program wrote True or TRUE, as Python and spreadsheets do: JSON's
    true, a CSV's True and Excel's TRUE are one label. Nothing else changes: other words keep their case.
    """
    composed = unicodedata.normalize("NFC", name)
    first, end = 0, len(composed)
    while first < end and _is_blank(composed[first]):
        first += 1
    while end > first and _is_blank(composed[end - 1]):
        end -= 1
    cleaned = composed[first:end]
    return _BOOLEANS.get(cleaned, cleaned)


def alike(names: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """Those of ``names`` that only capitals or blanks tell apart, sorted, by groups: few people mean two classes."""
    groups: dict[str, list[str]] = {}
    for name in sorted(names):
        folded = unicodedata.normalize("NFKC", name).casefold()
        groups.setdefault("".join(folded.split()), []).append(name)
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)


def _is_blank(character: str) -> bool:
    return character.isspace() or character in _UNSEEN or unicodedata.category(character) == "Cc"
