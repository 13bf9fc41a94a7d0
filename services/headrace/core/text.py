"""Text from strangers, made safe for a log or a terminal; and the one spelling of label names.

A terminal obeys control characters, U+0080 to U+009F among them; bidirectional controls turn a line round, so that it
reads as another one; and some tools break lines at U+2028. So all of the categories Cc, Cf, Zl and Zp are escaped, and
lone surrogates, which no stream can encode. The escapes are those of JSON, so that JSON stays what it was.

Wherever names of labels come in or are compared, :func:`label_name` cleans them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

# Listed by hand, because walking all of Unicode takes longer than a start. A test compares the list with the
# categories.
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
    """``text`` with all invisible characters escaped. With ``lines`` line breaks (LF) and tabs stay."""
    # Nearly all text is printable, and this check costs a hundredth of the rest.
    if text.isprintable():
        return text
    return _ESCAPED.sub(lambda found: found[0] if lines and found[0] in _LAYOUT else _escape(found[0]), text)


def _escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def given_as(value: object, longest: int = LONGEST_GIVEN) -> str:
    """A given value for an error message: its repr, truncated if it is long.

    A value without a repr (a number of very many digits, an object whose repr fails) is shown by its type.
    """
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - the error to report must not become another one
        text = f"<{type(value).__name__}>"
    return text if len(text) <= longest else text[:longest] + "..."


# Invisible characters that copying may leave at the ends of a name: zero-width space, direction marks, word joiner,
# soft hyphen, byte order mark. Inside a name they stay, and so do the joiners, which choose letters.
_UNSEEN = frozenset(
    "\u00ad\u061c\u180e\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff"
)
_BOOLEANS = {word: lower for lower in ("true", "false") for word in (lower, lower.capitalize(), lower.upper())}


def label_name(name: str) -> str:
    """``name`` composed (NFC), without the blanks and unseen characters at its ends; empty when nothing is left.

    True and TRUE become `true`, and so for false, because JSON's true, Python's True and Excel's TRUE are one label.
    All other words keep their case.
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
    """Groups of ``names`` that differ only in capitals or blanks, sorted. Few people mean two classes by them."""
    groups: dict[str, list[str]] = {}
    for name in sorted(names):
        folded = unicodedata.normalize("NFKC", name).casefold()
        groups.setdefault("".join(folded.split()), []).append(name)
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)


def _is_blank(character: str) -> bool:
    return character.isspace() or character in _UNSEEN or unicodedata.category(character) == "Cc"
