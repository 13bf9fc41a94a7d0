"""Records that are bad on purpose, made of good texts, and what kind of bad a record is that somebody else sent.

They go out as JSON whatever the workload's content type is, and without a deadline: none may expire before it is
looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from headrace_load.workload.spec import Badness
from headrace_schemas.codec import MAX_TEXT_BYTES, decode_request, encode_request
from headrace_schemas.errors import (
    BadBytesError,
    BadHeaderError,
    IdTooLargeError,
    MissingFieldError,
    TextTooLargeError,
    UnknownContentTypeError,
    WireError,
)
from headrace_schemas.headers import TIMEOUT_MS, Headers, content_type, read_timeout_ms
from headrace_schemas.records import ClassifyRequest

BAD_HEADERS: Final = ((TIMEOUT_MS, b"soon"),)

_encode = msgspec.json.encode


def _too_large(text: str) -> bytes:
    return _encode({"text": (text + " ") * (MAX_TEXT_BYTES // (len(text) + 1) + 1)})


_MADE: dict[Badness, Callable[[str], bytes | None]] = {
    "not-json": lambda text: _encode({"text": text})[:-1],
    "no-text": lambda text: _encode({"body": text}),
    "bad-utf8": lambda text: _encode({"text": text})[:-2] + b'\xff"}',
    "too-large": _too_large,
    "bad-header": lambda text: encode_request(ClassifyRequest(text=text)),
    "null": lambda _: None,
}


def rubbish(kind: Badness, text: str) -> tuple[bytes | None, Headers]:
    """Return the value and the headers of a record that is bad in the way ``kind`` says."""
    return _MADE[kind](text), BAD_HEADERS if kind == "bad-header" else ()


def parse_request(value: bytes | None, headers: Headers) -> ClassifyRequest | Badness:
    """Return the request that a record holds, or the kind that comes nearest to what is bad about it."""
    try:
        request = decode_request(value, content_type(headers))
        read_timeout_ms(headers)
    except WireError as error:
        return _kind(value, error)
    return request


def _kind(value: bytes | None, error: WireError) -> Badness:
    match error:
        case BadHeaderError() | UnknownContentTypeError():
            return "bad-header"
        case TextTooLargeError() | IdTooLargeError():
            return "too-large"
        case BadBytesError():
            return "not-json" if _is_utf8(value or b"") else "bad-utf8"
        case MissingFieldError() if value is None:
            return "null"
        case _:
            return "no-text"


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
