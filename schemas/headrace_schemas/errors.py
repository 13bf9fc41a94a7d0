"""What can be wrong with a record: one type a fault, each naming the record and the field.

``code`` never changes: it travels in the headers of dead letters and labels a metric.
"""

from __future__ import annotations

import re
from typing import ClassVar, Self

import msgspec

from headrace_schemas.foreign_bytes import hint

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
        return ": ".join(part for part in (self.record, self.field, self.message) if part)

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
