"""The OpenAPI 3.1 document, made of the table of endpoints and the structs of their bodies.

Run ``python -m headrace.gateway.openapi`` after a change; ``--check`` writes nothing and ends with status 1 when
``openapi.json`` is not what would be written.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, TextIO

import msgspec

from headrace.gateway.app import Endpoint
from headrace.gateway.problems import PROBLEM_JSON, ProblemDetails
from headrace_schemas.asyncapi import plain, prose

FILE: Final = Path(__file__).with_name("openapi.json")
API_VERSION: Final = "1.0.0"
JSON: Final = "application/json"
TEXT: Final = "text/plain"
EVENTS: Final = "text/event-stream"
_REFERENCE: Final = "#/components/schemas/{name}"
_PARAMETER = re.compile(r"{(\w+)}")
_PATTERNS: Final = {"place": r"^[0-9]{1,6}@[0-9]{1,18}$", "action": "^(rollback|pin|unpin)$"}


def document(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """Return the document of ``endpoints``."""
    types = [one for endpoint in endpoints for one in (endpoint.asks, *_tells(endpoint)) if one is not None]
    unique = list({repr(one): one for one in types}.values())
    schemas, components = msgspec.json.schema_components([*unique, ProblemDetails], ref_template=_REFERENCE)
    by_type = {repr(one): plain(schema) for one, schema in zip(unique, schemas, strict=False)}
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint, by_type)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "headrace",
            "version": API_VERSION,
            "description": "Texts are labelled: published to Apache Kafka, answered by workers, and told over HTTP.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": {name: plain(schema) for name, schema in components.items()},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "A token of an API key."}},
        },
    }


def render() -> bytes:
    """Return the file's content."""
    from headrace.gateway.endpoints import ENDPOINTS  # noqa: PLC0415 - one of them serves the file

    return msgspec.json.format(msgspec.json.encode(document(ENDPOINTS)), indent=2) + b"\n"


def main(arguments: Sequence[str], out: TextIO, file: Path = FILE) -> int:
    """Write ``file``, or with ``--check`` compare; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m headrace.gateway.openapi", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 when the file is out of date")
    check: bool = parser.parse_args(arguments).check
    content = render()
    if file.exists() and file.read_bytes() == content:
        return 0
    if check:
        out.write(f"{file} is out of date: run python -m headrace.gateway.openapi\n")
        return 1
    file.write_bytes(content)
    out.write(f"{file} written\n")
    return 0


def _operation(endpoint: Endpoint, by_type: dict[str, Any]) -> dict[str, Any]:
    told = {"description": endpoint.title, "content": _told(endpoint, by_type)}
    problem = {
        "description": "Why not, with field and limit.",
        "content": {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}},
    }
    operation: dict[str, Any] = {
        "summary": endpoint.title,
        "description": prose(endpoint.handle.__doc__ or ""),
        "operationId": f"{endpoint.handle.__name__}{len(_PARAMETER.findall(endpoint.path)) or ''}",
        "responses": {**{str(status): told for status in endpoint.statuses}, "default": problem},
    }
    if endpoint.roles is not None:
        operation["security"] = [{"key": []}]
        operation["description"] += f" For keys with the role {' or '.join(sorted(endpoint.roles))}."
    parameters = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {
                "type": "string",
                "minLength": 1,
                **({"pattern": found} if (found := _PATTERNS.get(name)) else {}),
            },
        }
        for name in _PARAMETER.findall(endpoint.path)
    ]
    parameters += [{"name": name, "in": "query", "schema": schema} for name, schema in endpoint.query.items()]
    parameters += [
        {"name": name, "in": "header", "description": words, "schema": {"type": "string"}}
        for name, words in endpoint.headers.items()
    ]
    if parameters:
        operation["parameters"] = parameters
    if endpoint.asks is not None:
        content = {JSON: {"schema": by_type[repr(endpoint.asks)]}}
        if endpoint.bare:
            content[TEXT] = {"schema": {"type": "string", "description": "One text."}}
        operation["requestBody"] = {"required": not endpoint.optional_body, "content": content}
    return operation


def _told(endpoint: Endpoint, by_type: dict[str, Any]) -> dict[str, Any]:
    if told := [by_type[repr(one)] for one in _tells(endpoint)]:
        return {JSON: {"schema": told[0] if len(told) == 1 else {"anyOf": told}}}
    return {endpoint.media_type: {"schema": {} if endpoint.media_type == JSON else {"type": "string"}}}


def _tells(endpoint: Endpoint) -> tuple[Any, ...]:
    """The types of the reply: one, or one of several."""
    if endpoint.tells is None:
        return ()
    return endpoint.tells if isinstance(endpoint.tells, tuple) else (endpoint.tells,)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], sys.stdout))
