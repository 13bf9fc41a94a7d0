"""Text of strangers: made safe for a log or a terminal, and label names in their one spelling.

A terminal obeys control characters, U+0080 to U+009F among them; bidirectional controls turn a line round, so that it
reads as another one; and some tools break lines at U+2028. So all of the categories Cc, Cf, Zl and Zp are escaped, and
lone surrogates, which no stream can encode. The escapes are those of JSON, so that JSON stays what it was.

Wherever names of labels come in or are compared, :func:`label_name` cleans them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

# By hand, because going through all of Unicode takes longer than starting; a test holds it to the categories.
_ESCAPED = re.compile(
    "[\\x00-\\x1f\\x7f-\\x9f\\xad\\u0600-\\u0605\\u061c\\u06dd\\u070f\\u0890\\u0891\\u08e2\\u180e\\u200b-\\u200f"
    "\\u2028-\\u202e\\u2060-\\u206f\\ud800-\\udfff\\ufeff\\ufff9-\\ufffb\\U000110bd\\U000110cd"
    "\\U00013430-\\U0001343f\\U0001bca0-\\U0001bca3\\U0001d173-\\U0001d17a\\U000e0000-\\U000e007f]"
)
_LAYOUT = "\n\t"
LONGEST_GIVEN = 60


def quantity(count: int, noun: str, plural: str = "") -> str:
    """``count`` and its noun: "1 row", "2,000 rows"; ``plural`` is for a noun that takes more than an s."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def printable(text: str, *, lines: bool = False) -> str:
    """``text`` with everything escaped that has no shape. With ``lines`` line breaks (LF) and tabs stay."""
    # Nearly all text is, and this asks at a hundredth of the cost.
    if text.isprintable():
        return text
    return _ESCAPED.sub(lambda found: found[0] if lines and found[0] in _LAYOUT else _escape(found[0]), text)


def _escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def given_as(value: object, longest: int = LONGEST_GIVEN) -> str:
    """What somebody gave, for the message of an error: as Python writes it, and cut where it is long.

    What can't be written (a number of very many digits, or an object that fails over it) is named by its type.
    """
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - the error that is to be told must not become another one
        text = f"<{type(value).__name__}>"
    return text if len(text) <= longest else text[:longest] + "..."


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
