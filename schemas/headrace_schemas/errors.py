"""What can be wrong with a record: one type a fault, each naming the record and the field.

``code`` never changes: it travels in the headers of dead letters and labels a metric.

Bytes that are no JSON get a hint at what they seem to be, and JSON is also read behind a byte order mark or another
program's frame. A hint names a kind of bytes, never their content: it goes into dead letters and logs.
"""

from __future__ import annotations

import re
from typing import ClassVar, Final, Self

import msgspec

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
_AT_BYTE = re.compile(r"\(byte (\d+)\)")
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
    # Most of a flood is nearly JSON. Of what is looked for, only UTF-16 and UTF-32 begin with a brace.
    nearly = value[:1] == b"{" and value[1:2] != b"\0"
    return ("" if nearly else _kind_of(value)) or _slip_in(value, fault)


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
    if "surrogate" in fault or (b"\\u" in value and _HALF_A_PAIR.search(value)):
        return (
            "half a surrogate pair (\\ud800 to \\udfff alone) is no character: "
            "a text was cut inside an emoji, or came from UTF-16 unchecked"
        )
    if not value.isascii() and not _utf8(value):
        return "the value is not UTF-8; Latin-1, Windows-1252 and the like are not read"
    at = _AT_BYTE.search(fault) if "(byte " in fault else None
    place = int(at[1]) if at else 0
    if "object keys must be strings" in fault or "trailing comma" in fault or value[place : place + 1] == b"'":
        return "JSON has keys and texts in double quotes and no comma at an end; Python's own notation is not JSON"
    if "trailing characters" in fault:
        return "more follows behind the JSON value; one record holds one request"
    if place and _NOT_JSON.match(value, place):
        return "NaN, Infinity, None and the like are not JSON; write null"
    if at and b"" < value[place : place + 1] < b" ":
        return "a line break, tab or other control character in a JSON string is written \\n, \\t or \\u00XX"
    if value.lstrip()[:1] not in (b"{", b"["):
        return "a bare text needs the header content-type: text/plain; without one a value is JSON"
    return ""


# All that msgspec's decoders raise on bytes they can't take; RecursionError comes of deep nesting, also in fields
# that are skipped.
DECODING_FAULTS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

_MISSING = re.compile(r"^Object missing required field `([^`]+)`(?: - at `\$\.?([^`]*)`)?$")
_AT = re.compile(r" - at `\$\.?([^`]+)`$")


class WireError(Exception):
    """A record that breaks the wire's rules.

    ``record`` names it as :func:`place` does ("" while the caller does not know it yet, see :meth:`at`), ``field``
    is the path of the part that is wrong, ``message`` says what was found and what is allowed.
    """

    code: ClassVar[str] = "wire"

    def __init__(self, field: str, message: str, record: str = "") -> None:
        super().__init__(field, message, record)
        self.field = field
        self.message = message
        self.record = record

    def __str__(self) -> str:
        return ": ".join(filter(None, (self.record, self.field, self.message)))

    def at(self, record: str) -> Self:
        """The same error, naming ``record``: decoders on the hot path are not told which record they decode."""
        return type(self)(self.field, self.message, record)


class BadBytesError(WireError):
    """Not UTF-8, not the format that the content type promises, cut off, or nested too deeply."""

    code = "bad-bytes"


class BadTypeError(WireError):
    """A field holds another type than it must."""

    code = "bad-type"


class MissingFieldError(WireError):
    """A field without a default is absent."""

    code = "missing-field"


class MissingTextError(MissingFieldError):
    """There is no text to classify: the field is absent, or the record's value is null."""

    code = "missing-text"


class TextTooLargeError(WireError):
    """The text has more bytes of UTF-8 than the limit."""

    code = "text-too-large"


class IdTooLargeError(WireError):
    """The id, which every answer repeats, has more bytes of UTF-8 than the limit."""

    code = "id-too-large"


class RequestTooLargeError(WireError):
    """Key, value and headers together have more bytes than the topic of requests takes uncompressed."""

    code = "request-too-large"


class UnknownContentTypeError(WireError):
    """The content type is none of those that this record may have."""

    code = "unknown-content-type"


class BadHeaderError(WireError):
    """A header of ours holds what it must not."""

    code = "bad-header"


class BadKeyError(WireError):
    """A record's key is not what its topic asks for."""

    code = "bad-key"


def place(topic: str, partition: int, offset: int) -> str:
    """Name a record for people: ``classify.requests[3]@42``."""
    return f"{topic}[{partition}]@{offset}"


def from_decoding_fault(fault: Exception, record: str = "", json: bytes | None = None) -> WireError:
    """Turn one of :data:`DECODING_FAULTS` into the error that names the field. ``json`` should have been JSON."""
    message = str(fault)
    if isinstance(fault, RecursionError):
        return BadBytesError("value", "nested too deeply to be decoded", record)
    if not isinstance(fault, msgspec.ValidationError):
        cause = "" if json is None else hint(json, message)
        return BadBytesError("value", f"{cause} ({message})" if cause else message, record)
    if missing := _MISSING.match(message):
        name, parent = missing.groups()
        field = f"{parent}.{name}" if parent else name
        error = MissingTextError if field == "text" else MissingFieldError
        return error(field, "is required and absent", record)
    at = _AT.search(message)
    return BadTypeError(at[1] if at else "value", _AT.sub("", message), record)
