"""Text of strangers made safe for a log or a terminal: what has no shape of its own is written as an escape.

A terminal obeys control characters, U+0080 to U+009F among them; bidirectional controls turn a line round, so that it
reads as another one; and some tools break lines at U+2028. All of the categories Cc, Cf, Zl and Zp are escaped, and
lone surrogates, which no stream can encode. The escapes are those of JSON, so that JSON stays what it was.
"""

from __future__ import annotations

import re

# By hand, because going through all of Unicode takes longer than starting; a test holds it to the categories.
_ESCAPED = re.compile(
    "[\\x00-\\x1f\\x7f-\\x9f\\xad\\u0600-\\u0605\\u061c\\u06dd\\u070f\\u0890\\u0891\\u08e2\\u180e\\u200b-\\u200f"
    "\\u2028-\\u202e\\u2060-\\u206f\\ud800-\\udfff\\ufeff\\ufff9-\\ufffb\\U000110bd\\U000110cd"
    "\\U00013430-\\U0001343f\\U0001bca0-\\U0001bca3\\U0001d173-\\U0001d17a\\U000e0000-\\U000e007f]"
)
_LAYOUT = "\n\t"
LONGEST_GIVEN = 60


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
