"""Record headers: their names, and readers that cost next to nothing when a record has none.

Names are compared exactly, as Kafka does; of headers with the same name the last one counts.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from headrace_schemas.errors import BadHeaderError, UnknownContentTypeError

# Kafka allows a header without a value, and clients hand it over as None.
Headers = Sequence[tuple[str, bytes | None]]

CONTENT_TYPE: Final = "content-type"
TIMEOUT_MS: Final = "timeout-ms"
TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
TENANT: Final = "tenant"
ATTEMPT: Final = "headrace-attempt"
EXPLAIN: Final = "headrace-explain"
BY: Final = "headrace-by"
"""Of a record without a value on classify.labels: who erased the label, where that is known."""
CALL: Final = "headrace-call"

# Copied from a request to its answer, so that a trace and a tenant can be followed through.
COPIED: Final = (TRACEPARENT, TRACESTATE, TENANT)

JSON: Final = "application/json"
MSGPACK: Final = "application/msgpack"
TEXT: Final = "text/plain"

MAX_TIMEOUT_MS: Final = 7 * 24 * 3600 * 1000
MAX_ATTEMPT: Final = 1_000_000

_MEDIA_TYPES = {
    JSON: JSON,
    "text/json": JSON,
    "application/x-json": JSON,
    MSGPACK: MSGPACK,
    "application/x-msgpack": MSGPACK,
    "application/vnd.msgpack": MSGPACK,
    TEXT: TEXT,
}
_SUFFIXES = {"json": JSON, "msgpack": MSGPACK}
"""Structured syntax suffixes (RFC 6839): application/cloudevents+json is JSON."""
_ALLOWED: Final = f"{JSON}, text/json, any +json, {MSGPACK}, any +msgpack and {TEXT}"
_EXACT = {name.encode(): known for name, known in _MEDIA_TYPES.items()}
_CHARSETS = {"utf-8", "utf8", "us-ascii"}


def content_type(headers: Headers, where: str = "") -> str:
    """Return :data:`JSON` (also without a header), :data:`MSGPACK` or :data:`TEXT`.

    A type that ends in ``+json`` or ``+msgpack`` is that format; of parameters only the charset counts.
    Raises UnknownContentTypeError for any other type, and for a charset other than UTF-8.
    """
    if not headers:
        return JSON
    for name, value in reversed(headers):
        if name == CONTENT_TYPE:
            return _EXACT.get(value or b"") or _parse_content_type(value, where)
    return JSON


def read_timeout_ms(headers: Headers, where: str = "") -> int | None:
    """Return how many milliseconds after its own timestamp a request expires; None: never.

    Raises BadHeaderError unless it is a whole number from 1 to :data:`MAX_TIMEOUT_MS` in ASCII digits.
    """
    if not headers:
        return None
    for name, value in reversed(headers):
        if name == TIMEOUT_MS:
            return _whole_number(name, value, MAX_TIMEOUT_MS, where)
    return None


def read_attempt(headers: Headers, where: str = "") -> int:
    """Return which attempt at this request it is: 1, or what a replay of its dead letter has raised it to.

    Raises BadHeaderError unless it is a whole number from 1 to :data:`MAX_ATTEMPT` in ASCII digits.
    """
    if not headers:
        return 1
    for name, value in reversed(headers):
        if name == ATTEMPT:
            return _whole_number(name, value, MAX_ATTEMPT, where)
    return 1


def read_explain(headers: Headers, where: str = "") -> bool:
    """Return whether the request asks why it gets its label: the header is 1, not 0, and absent means no.

    Raises BadHeaderError for any other value.
    """
    if not headers:
        return False
    for name, value in reversed(headers):
        if name == EXPLAIN:
            if value not in {b"0", b"1"}:
                raise BadHeaderError(f"header {name}", f"{shown(value)} is neither 1 nor 0", where)
            return value == b"1"
    return False


def copied_headers(headers: Headers, names: Collection[str] = COPIED) -> Headers:
    """Return the headers that an answer takes over from its request, in their order."""
    if not headers:
        return ()
    return tuple(header for header in headers if header[0] in names)


def _whole_number(name: str, value: bytes | None, most: int, where: str) -> int:
    # bytes.isdigit() is ASCII only, and the length bounds the cost of int().
    if value is not None and value.isdigit() and len(value) <= len(str(most)) and 1 <= (number := int(value)) <= most:
        return number
    raise BadHeaderError(f"header {name}", f"{shown(value)} is not a whole number from 1 to {most}", where)


def _parse_content_type(value: bytes | None, where: str) -> str:
    media_type, *parameters = (value or b"").decode("ascii", "replace").lower().split(";")
    known = _MEDIA_TYPES.get(media_type.strip()) or _by_suffix(media_type.strip())
    if known is None:
        raise UnknownContentTypeError(f"header {CONTENT_TYPE}", f"{shown(value)} is none of {_ALLOWED}", where)
    pairs = (parameter.partition("=") for parameter in parameters)
    charsets = {setting.strip(" \"'") for name, _, setting in pairs if name.strip() == "charset"}
    if foreign := charsets - _CHARSETS:
        named = shown(min(foreign).encode())
        raise UnknownContentTypeError(f"header {CONTENT_TYPE}", f"charset {named} is not read, only utf-8", where)
    return known


def _by_suffix(media_type: str) -> str | None:
    kind, _, name = media_type.partition("/")
    start, _, suffix = name.rpartition("+")
    return _SUFFIXES.get(suffix) if kind and start and "/" not in name else None


def shown(value: bytes | None, most: int = 80) -> str:
    """Show a header's value in a message: quoted, escaped, cut; "null" for none."""
    return "null" if value is None else repr(value[:most].decode("utf-8", "backslashreplace"))
