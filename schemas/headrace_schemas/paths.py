r"""Requests in a team's own records: the text, the id and the fields to copy stand at paths inside them.

A path names map keys and list indices, separated by dots: ``ticket.body``, ``items.0.text``. A dot or a backslash that
belongs to a key has a backslash before it: ``after\.body`` is the one key ``after.body``, as flattening tools write it.

Requests are written as a worker reads them, with text and id at the paths of a :class:`RequestShape`. The record holds
these alone, because nothing else of a team's record is known here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from headrace_schemas.codec import MAX_TEXT_BYTES, check_sizes, decode_foreign, decode_request, encode_request
from headrace_schemas.errors import (
    BadBytesError,
    BadTypeError,
    MissingTextError,
    UnknownContentTypeError,
    WireError,
)
from headrace_schemas.headers import COPIED, JSON, MSGPACK, TEXT, Headers, copied_headers
from headrace_schemas.records import ClassifyRequest

Decode = Callable[[bytes | None, str], ClassifyRequest]
Copy = Callable[[bytes | None, str, Headers], Headers]

MAX_COPIED_BYTES: Final = 4096
"""The largest copied field. As JSON a value can be longer than it was, and an answer must not become too large."""

# A place has one spelling, or two paths could lead to it. Nine digits bound the cost of int(), and no list in a record
# is longer.
_PLACE: Final = re.compile(r"0|[1-9][0-9]{0,8}")
_ABSENT: Final = object()
_NAMES: Final = {str: "str", bool: "bool", int: "int", float: "float", dict: "map", list: "list", type(None): "null"}

_GENERIC: dict[str, Callable[[bytes], object]] = {
    JSON: msgspec.json.Decoder().decode,
    MSGPACK: msgspec.msgpack.Decoder().decode,
}


class RequestShape(msgspec.Struct, frozen=True, kw_only=True):
    """Where a request's parts are. The default is our own record, with ``text`` and ``id`` at its top.

    ``copy_headers`` names headers that the answer takes over, ``copy_fields`` maps a header of the answer to the path
    of its value, ``max_text_bytes`` limits the text's UTF-8.
    """

    text_path: str = "text"
    """Where a request has its text, as a path such as ticket.body."""
    id_path: str = "id"
    """Where a request has its id."""
    copy_headers: tuple[str, ...] = COPIED
    """Names of a request's headers that its answer takes over."""
    copy_fields: dict[str, str] = {}
    """Headers of an answer, each with the path of its value in the request."""
    max_text_bytes: int = MAX_TEXT_BYTES
    """Longest text, in bytes of UTF-8."""


def compile_shape(shape: RequestShape) -> Decode:
    """Return the function that decodes a value by its content type as ``shape`` says.

    It raises a WireError naming the path that is absent or holds the wrong type, without the record's name (see
    :meth:`~headrace_schemas.errors.WireError.at`). Our own record is decoded into its type, any other generically.
    A whole number is taken as an id, in its decimal digits. Raises ValueError for a path that is none.
    """
    limit = shape.max_text_bytes
    if limit < 1:
        raise ValueError(f"max_text_bytes is {limit}, and must be at least 1")
    text_path, id_path = parse_path(shape.text_path), parse_path(shape.id_path)
    both = min(len(text_path), len(id_path))
    if len(text_path) != len(id_path) and text_path[:both] == id_path[:both]:
        raise ValueError(
            f"text_path {shape.text_path!r} and id_path {shape.id_path!r}: neither can lie inside the other, "
            "because a text and an id have no parts"
        )
    if (shape.text_path, shape.id_path) == ("text", "id"):
        return lambda value, content_type: decode_request(value, content_type, limit=limit)

    def decode(value: bytes | None, content_type: str) -> ClassifyRequest:
        if value is None or content_type == TEXT:
            return decode_request(value, content_type, limit=limit)
        document = _decode_generic(value, content_type)
        request = ClassifyRequest(text=_text_at(document, text_path), id=_id_at(document, id_path))
        check_sizes(request, limit)
        return request

    return decode


def compile_copy(shape: RequestShape) -> Copy:
    """Return the function that takes a request's value, content type and headers to the headers of its answer.

    ``copy_fields`` cost a second, generic decoding; without them the value is not touched. A string is copied as
    UTF-8, anything else as JSON; an absent path, null, a value of more than :data:`MAX_COPIED_BYTES` and one that
    can't be decoded or shown give no header, because an answer must not fail for what it only carries along. Raises
    ValueError for a path that is none.
    """
    names = frozenset(shape.copy_headers)
    fields = {name: parse_path(path) for name, path in shape.copy_fields.items()}
    if not fields:
        return lambda _value, _content_type, headers: copied_headers(headers, names)

    def copy(value: bytes | None, content_type: str, headers: Headers) -> Headers:
        try:
            document = _ABSENT if value is None else _decode_generic(value, content_type)
        except WireError:  # the request fails, or has failed, by its own decoding, which tells why
            document = _ABSENT
        found = ((name, _shown(_walk(document, path))) for name, path in fields.items())
        return (*copied_headers(headers, names), *(header for header in found if header[1] is not None))

    return copy


def parse_path(path: str) -> tuple[str, ...]:
    r"""Split a path at its dots; ``\.`` is a dot inside a key and ``\\`` a backslash.

    Raises ValueError for a path that could never match: an empty part, a backslash before anything else or at the end,
    and what no record can hold because UTF-8 can't.
    """
    parts = [""]
    letters = iter(path)
    for letter in letters:
        if letter == "\\":
            escaped = next(letters, "")
            if escaped not in (".", "\\"):
                shown = f"{letter}{escaped}" if escaped else "a backslash at the end"
                raise ValueError(
                    f"path '{path}': {shown} means nothing; write \\. for a dot in a key and \\\\ for a backslash"
                )
            parts[-1] += escaped
        elif letter == ".":
            parts.append("")
        else:
            parts[-1] += letter
    if "" in parts:
        raise ValueError(
            f"path '{path}': write map keys and list indices parted by single dots, as in ticket.body; "
            "a dot that belongs to a key is written \\."
        )
    try:
        path.encode()
    except UnicodeEncodeError:
        raise ValueError(f"path {path!r} is not UTF-8, so no record holds such a key") from None
    return tuple(parts)


def write_path(parts: Sequence[str]) -> str:
    """Return the path that :func:`parse_path` splits into ``parts``."""
    return ".".join(part.replace("\\", "\\\\").replace(".", "\\.") for part in parts)


def _decode_generic(value: bytes, content_type: str) -> object:
    decoder = _GENERIC.get(content_type)
    if decoder is None:
        raise UnknownContentTypeError("content-type", f"{content_type!r} is no format with paths inside")
    return decode_foreign(decoder, value, content_type)


def _walk(document: object, path: tuple[str, ...]) -> object:
    for part in path:
        if isinstance(document, dict):
            document = document.get(part, _ABSENT)
        elif isinstance(document, list) and _PLACE.fullmatch(part) and int(part) < len(document):
            document = document[int(part)]
        else:
            return _ABSENT
    return document


def _text_at(document: object, path: tuple[str, ...]) -> str:
    text = _walk(document, path)
    if isinstance(text, str):
        return text
    field = write_path(path)
    if text is _ABSENT:
        raise MissingTextError(field, f"is where the text must be, and absent{_flattened(document, path)}")
    raise BadTypeError(field, f"Expected `str`, got `{_type_name(text)}`")


def _flattened(document: object, path: tuple[str, ...]) -> str:
    """Return a hint where the parts of ``path`` are one key with dots in it: nothing is looked up by it."""
    key = ".".join(path)
    if len(path) > 1 and isinstance(document, dict) and key in document:
        return f"; there is one key of that name, whose path is {write_path((key,))}"
    return ""


def _id_at(document: object, path: tuple[str, ...]) -> str | None:
    found = _walk(document, path)
    if found is _ABSENT or found is None:
        return None
    if isinstance(found, str):
        return found
    if isinstance(found, int) and not isinstance(found, bool):
        return str(found)
    raise BadTypeError(write_path(path), f"Expected `str | int | null`, got `{_type_name(found)}`")


def _shown(value: object) -> bytes | None:
    if value is _ABSENT or value is None:
        return None
    try:
        shown = value.encode() if isinstance(value, str) else msgspec.json.encode(value)
    except (TypeError, ValueError, RecursionError):  # MessagePack's extensions and odd map keys have no JSON
        return None
    return shown if len(shown) <= MAX_COPIED_BYTES else None


def _type_name(value: object) -> str:
    return _NAMES.get(type(value), type(value).__name__)


Encode = Callable[[ClassifyRequest, str], bytes]

_ENCODERS: Final = {JSON: msgspec.json.Encoder().encode, MSGPACK: msgspec.msgpack.Encoder().encode}


def request_value(shape: RequestShape, text: str, id: str | None) -> object:  # noqa: A002 - the field's name
    """Return the maps and lists that hold ``text`` and ``id`` at the paths of ``shape``.

    A part of a path that is 0 makes a list where nothing beside it has a name. Raises BadTypeError for what can't be
    built: a later place of a list with nothing in front of it, and an id beside a text at the same path. ``shape`` is
    one that :func:`~headrace_schemas.paths.compile_shape` takes.
    """
    text_path, id_path = parse_path(shape.text_path), parse_path(shape.id_path)
    leaves = {text_path: text}
    if id is not None and leaves.setdefault(id_path, id) != id:
        raise BadTypeError(shape.id_path, "is where the text is too, so a request can't have another id")
    return _built(leaves, shape)


def compile_writer(shape: RequestShape) -> Encode:
    """Return the function that encodes a request by its content type so that :func:`compile_shape` reads it back.

    It raises a WireError for what a worker would refuse or what can't be built.
    """
    limit = shape.max_text_bytes
    if (shape.text_path, shape.id_path) == ("text", "id"):
        return lambda request, content_type: encode_request(request, content_type, limit=limit)
    decode = compile_shape(shape)

    def encode(request: ClassifyRequest, content_type: str) -> bytes:
        if content_type == TEXT:
            return encode_request(request, content_type, limit=limit)
        encoder = _ENCODERS.get(content_type)
        if encoder is None:
            raise UnknownContentTypeError("content-type", f"{content_type!r} is no format of a request")
        document = request_value(shape, request.text, request.id)
        try:
            value = encoder(document)
        except UnicodeEncodeError as error:
            raise BadBytesError("value", f"holds what is no text: {error}") from error
        except RecursionError as error:
            raise BadBytesError(shape.text_path, "is too deep to be written") from error
        check_sizes(request, limit)
        # A path may be too deep to be read although it can be written.
        decode(value, content_type)
        return value

    return encode


def _built(leaves: dict[tuple[str, ...], str], shape: RequestShape) -> object:
    if () in leaves:
        return leaves[()]
    children: dict[str, dict[tuple[str, ...], str]] = {}
    for path, leaf in leaves.items():
        children.setdefault(path[0], {})[path[1:]] = leaf
    if not all(_PLACE.fullmatch(part) for part in children):
        return {part: _built(below, shape) for part, below in children.items()}
    if sorted(children) != [str(number) for number in range(len(children))]:
        raise BadTypeError(
            shape.text_path,
            f"asks for place {max(children, key=lambda part: (len(part), part))} of a list, and what is in front of it "
            f"is not known here (requests.text_path {shape.text_path}, requests.id_path {shape.id_path}); publish "
            "whole records, as bytes",
        )
    return [_built(children[str(number)], shape) for number in range(len(children))]
