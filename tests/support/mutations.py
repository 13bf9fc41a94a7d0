"""Bytes as nobody should send them: of no structure at all, and golden examples that were damaged a little."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hypothesis import strategies as st

import headrace_schemas

EXAMPLES = Path(headrace_schemas.__file__).parent / "examples"
# Numbers at the edge of their types, lengths that promise more than there is, deep nesting, half characters.
SPLINTERS = (
    *(
        b"",
        b"\0",
        b"\xff",
        b"\xed\xa0\x80",
        b"\\ud800",
        b"\\u0000",
        b'"',
        b"{",
        b"]",
        b"}",
        b",",
        b":",
        b"null",
        b"NaN",
    ),
    *(
        b"[" * 600,
        b"1e999",
        b"-0",
        b"9" * 400,
        b"18446744073709551616",
        b'"text":',
        b"\xa4text",
        b"\xc1",
        b"\x91" * 600,
    ),
    *(kind + b"\xff\xff\xff\xff\x01" for kind in (b"\xdd", b"\xdf", b"\xdb", b"\xc6", b"\xc9")),
    *(b"\xcb\x7f\xf0\0\0\0\0\0\0", b"\xd7" + b"\xff" * 9, b"\xc7\x0c\xff\0\0\0\0\x7f" + b"\xff" * 7, b"\xd6\x05abcd"),
    "e\u0301\u202e\ufeff".encode(),
)


def examples(name: str) -> list[bytes]:
    """The golden examples of one record, in every encoding."""
    return [path.read_bytes() for path in sorted(EXAMPLES.glob(f"{name}.*")) if path.is_file()]


@st.composite
def damaged(draw: st.DrawFn, originals: Sequence[bytes]) -> bytes:
    """One of ``originals`` with up to four pieces cut out, put in, doubled or replaced."""
    value = draw(st.sampled_from(originals))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(value)))
        end = min(len(value), start + draw(st.integers(0, 12)))
        piece = draw(st.one_of(st.sampled_from(SPLINTERS), st.binary(max_size=6), st.just(value[start:end] * 2)))
        value = value[:start] + piece + value[end:]
    return value


def hostile(originals: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Mostly damaged examples, for bytes without structure are refused at their first."""
    return st.one_of(damaged(originals), damaged(originals), st.binary(max_size=64))
