"""Requests made to be slow, large or confusing: as large as a record of the requests topic may be, where they can."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from headrace_schemas.headers import CONTENT_TYPE, JSON, MSGPACK, TENANT, TEXT, Headers

SIZE = 1_000_000
"""Bytes of text; with what is around it a record stays below the topic's 1 MiB."""
RAISED = 1_000_000
"""The largest text that a setting of requests.max_text_bytes could allow here."""


def filled(piece: str) -> str:
    """``piece`` as often as it fits."""
    return piece * (SIZE // len(piece.encode()))


def as_json(text: str) -> bytes:
    return msgspec.json.encode({"text": text})


def in_json(piece: bytes, size: int = SIZE) -> bytes:
    """A request whose text is ``piece`` again and again, as the bytes stand in JSON."""
    return b'{"text":"' + piece * (size // len(piece)) + b'"}'


def beside(field: bytes) -> bytes:
    """A good request in JSON with a field that nobody asked for."""
    return b'{"text":"good film","more":' + field + b"}"


def packed(field: bytes) -> bytes:
    """A good request in MessagePack with a field that nobody asked for."""
    return b"\x82\xa4text\xa9good film\xa4more" + field


# Name, value, content type, and what comes of it by the default limit of a text and by the raised one: the code of the
# failure, or None for an answer.
Bomb = tuple[str, Callable[[], bytes | None], str, str | None, str | None]
LARGE = "text-too-large"
BAD = ("bad-bytes", "bad-bytes")
TOO_LARGE = ("request-too-large", "request-too-large")
NILS = b"\xdd\0\x0f\x42\x40" + b"\xc0" * SIZE
BOMBS: tuple[Bomb, ...] = (
    ("a plain text of 64 KB", lambda: as_json("the good film, " * 4_000), JSON, None, None),
    ("a plain text of 1 MB", lambda: as_json(filled("the good film, ")), JSON, LARGE, None),
    ("one word of 1 MB", lambda: as_json(filled("a")), JSON, LARGE, None),
    ("half a million words", lambda: as_json(filled("a ")), JSON, LARGE, None),
    ("a million punctuation marks, each a word", lambda: as_json(filled("!")), JSON, LARGE, None),
    ("a letter with 500,000 combining marks", lambda: as_json("e" + "\u0301" * 499_999), JSON, LARGE, None),
    ("330,000 right-to-left overrides", lambda: as_json(filled("\u202e")), JSON, LARGE, None),
    ("330,000 zero-width joiners", lambda: as_json(filled("\u200d")), JSON, LARGE, None),
    ("250,000 emoji", lambda: as_json(filled("😀")), JSON, LARGE, None),
    ("330,000 Han characters", lambda: as_json(filled("你")), JSON, LARGE, None),
    ("500,000 capital I with a dot", lambda: as_json(filled("İ")), JSON, LARGE, None),
    ("a million NULs, bare", lambda: b"\0" * SIZE, TEXT, LARGE, None),
    ("166,000 NULs as escapes", lambda: in_json(b"\\u0000"), JSON, LARGE, None),
    ("166,000 letters as escapes", lambda: in_json(b"\\u0041"), JSON, LARGE, None),
    ("166,000 lone surrogates as escapes", lambda: in_json(b"\\ud800"), JSON, *BAD),
    ("83,000 emoji as pairs of surrogates", lambda: in_json(b"\\ud83d\\ude00"), JSON, LARGE, None),
    ("1 MB of half characters, bare", lambda: b"\xe4\xbd" * (SIZE // 2), TEXT, *BAD),
    ("a million brackets, beside the text", lambda: beside(b"[" * SIZE), JSON, *BAD),
    ("a number of a million digits, beside it", lambda: beside(b"9" * SIZE), JSON, None, None),
    ("a number of a million digits as the text", lambda: b'{"text":' + b"9" * SIZE + b"}", JSON, *("bad-type",) * 2),
    ("90,000 fields of the same name", lambda: b'{"text":"a"' + b',"text":"b"' * 90_000 + b"}", JSON, None, None),
    ("MessagePack: an array of 4 G elements", lambda: packed(b"\xdd\xff\xff\xff\xff"), MSGPACK, *BAD),
    ("MessagePack: a map of 4 G pairs", lambda: packed(b"\xdf\xff\xff\xff\xff"), MSGPACK, *BAD),
    ("MessagePack: 4 GB of text", lambda: b"\x81\xa4text\xdb\xff\xff\xff\xff", MSGPACK, *BAD),
    ("MessagePack: 200,000 arrays in each other", lambda: packed(b"\xdd\0\1\0\0" * 200_000), MSGPACK, *BAD),
    ("MessagePack: a million nils, beside the text", lambda: packed(NILS), MSGPACK, None, None),
    ("a text of 2 MB, compressed on its way", lambda: as_json("e" + "\u0301" * SIZE), JSON, *TOO_LARGE),
)  # fmt: skip


def headers_of(content_type: str) -> Headers:
    """What goes with a bomb: its content type, and headers that an answer repeats."""
    kind: Headers = () if content_type == JSON else ((CONTENT_TYPE, content_type.encode()),)
    return (*kind, (TENANT, b"a"))
