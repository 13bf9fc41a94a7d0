"""Requests written as a worker reads them: text and id at the paths of a :class:`RequestShape`.

What is at other paths of a team's own record is not known here, so the record holds text and id alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from headrace_schemas.codec import check_sizes, encode_request
from headrace_schemas.errors import BadBytesError, BadTypeError, UnknownContentTypeError
from headrace_schemas.headers import JSON, MSGPACK, TEXT
from headrace_schemas.paths import RequestShape, compile_shape, parse_path
from headrace_schemas.records import ClassifyRequest

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
    if not all(part.isascii() and part.isdigit() for part in children):
        return {part: _built(below, shape) for part, below in children.items()}
    if sorted(children) != [str(number) for number in range(len(children))]:
        raise BadTypeError(
            shape.text_path,
            f"asks for place {max(children, key=lambda part: (len(part), part))} of a list, and what is in front of it "
            f"is not known here (requests.text_path {shape.text_path}, requests.id_path {shape.id_path}); publish "
            "whole records, as bytes",
        )
    return [_built(children[str(number)], shape) for number in range(len(children))]
