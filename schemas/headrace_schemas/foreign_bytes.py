"""JSON as other programs write it: what stands in front of it and is passed over, and what bytes are that are no JSON.

A hint names a kind of bytes, never their content: it goes into dead letters and logs.
"""

from __future__ import annotations

import re
from typing import Final

_BOM: Final = b"\xef\xbb\xbf"
_FRAME: Final = 5
"""Bytes of Confluent's framing: the magic byte 0 and the number of a schema."""

_MAGIC: Final = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "Zstandard"),
    (b"\x04\x22\x4d\x18", "LZ4"),
    (b"\x82SNAPPY", "Snappy"),
    (b"PK\x03\x04", "ZIP"),
)
_HALF_A_PAIR = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])")
_AT = re.compile(r"\(byte (\d+)\)")
_NOT_JSON = re.compile(rb"-?(?:NaN|Infinity|nan|inf)|None|True|False|undefined")


def behind_frame(value: bytes) -> bytes | None:
    """Return the JSON behind a byte order mark or Confluent's framing, None where there is neither.

    No JSON begins with either, so nothing that could be read otherwise is read differently. JSON Schema framing has
    JSON behind its five bytes; what stands behind those of Avro or Protobuf is none, and is then refused.
    """
    if value.startswith(_BOM):
        return value[len(_BOM) :]
    if len(value) > _FRAME and not value[0]:
        return value[_FRAME:]
    return None


def hint(value: bytes, fault: str) -> str:
    """Say what ``value``, which failed to be decoded as JSON by ``fault``, seems to be and what to do."""
    return _kind_of(value) or _slip_in(value, fault)


def _kind_of(value: bytes) -> str:  # noqa: PLR0911 - one a kind
    if not value.strip():
        return "the value is empty; a request without a text can't be answered"
    for magic, name in _MAGIC:
        if value.startswith(magic):
            return f"the value is compressed by {name}; use the producer's compression.type, which consumers undo"
    if value.startswith((b"\xff\xfe", b"\xfe\xff")) or _wide(value):
        return "the value is UTF-16 or UTF-32; only UTF-8 is read"
    if not value[0]:
        return (
            "the value begins with byte 0, as Confluent's schema registry frames it, and no JSON is behind the frame: "
            "Avro and Protobuf are not read; publish JSON or MessagePack"
        )
    if value[0] == 3 and value[1:2] in (b"\0", b"\5"):
        return "the value begins as AWS Glue's schema registry frames it, which is not read; publish plain JSON"
    if value.startswith((b"Obj\x01", b"\xac\xed\0\5")):
        return "the value is an Avro file or a Java object; publish JSON or MessagePack"
    if 0x80 <= value[0] <= 0x8F or value[0] in (0xDE, 0xDF):
        return "the value looks like MessagePack; say so by the header content-type: application/msgpack"
    return ""


def _wide(value: bytes) -> bool:
    """Whether bytes before or behind each of the first characters are 0, as in ASCII written as UTF-16 or UTF-32.

    The number of a schema may be small, so a frame has zeros too; but never a bracket or a quote between them.
    """
    first = value[:8].replace(b"\0", b"")[:1]
    even, odd = value[0:8:2], value[1:8:2]
    return len(value) >= 4 and first in (b"{", b"[", b'"') and value.index(first) < 4 and not (any(even) and any(odd))


def _utf8(value: bytes) -> bool:
    # Asked of Python: msgspec's words for this fault differ from release to release.
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _slip_in(value: bytes, fault: str) -> str:  # noqa: PLR0911 - one a slip
    at = _AT.search(fault)
    place = int(at[1]) if at else 0
    if "surrogate" in fault or _HALF_A_PAIR.search(value):
        return (
            "half a surrogate pair (\\ud800 to \\udfff alone) is no character: "
            "a text was cut inside an emoji, or came from UTF-16 unchecked"
        )
    if not _utf8(value):
        return "the value is not UTF-8; Latin-1, Windows-1252 and the like are not read"
    if "object keys must be strings" in fault or "trailing comma" in fault or value[place : place + 1] == b"'":
        return "JSON has keys and texts in double quotes and no comma at an end; Python's own notation is not JSON"
    if "trailing characters" in fault:
        return "more follows behind the JSON value; one record holds one request"
    if _NOT_JSON.match(value, place) and place:
        return "NaN, Infinity, None and the like are not JSON; write null"
    if at and b"" < value[place : place + 1] < b" ":
        return "a line break, tab or other control character in a JSON string is written \\n, \\t or \\u00XX"
    if value.lstrip()[:1] not in (b"{", b"["):
        return "a bare text needs the header content-type: text/plain; without one a value is JSON"
    return ""
