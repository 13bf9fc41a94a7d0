"""The AsyncAPI 3 document and the JSON Schemas (2020-12) of the records, generated from the structs and the topics.

Run ``python -m headrace_schemas.asyncapi`` after a change of a record or a topic; ``--check`` writes nothing and ends
with status 1 when a file in ``generated/`` is not what would be written.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, TextIO

import msgspec

from headrace_schemas import headers
from headrace_schemas.dead_letters import CUT, ENCRYPTED, KEPT, NOTHING, PREFIX, SEALED_TO, VALUE_BYTES
from headrace_schemas.records import (
    ApiKey,
    Attempt,
    BarredText,
    Certificate,
    ClassifyRequest,
    ClassifyResult,
    DeadLetter,
    IdempotentCall,
    LabelledText,
    LabellerState,
    LabelRule,
    MachineLabel,
    MaxBatch,
    ModelAlias,
    ModelVersion,
    ResultsClaim,
    Review,
    Spending,
    TextLease,
    ThresholdRaise,
    Training,
    TrainingOrder,
    Usage,
    Verdict,
)
from headrace_schemas.topics import REPLICATION, Topic, topics

RECORDS: Final = (
    ClassifyRequest,
    ClassifyResult,
    LabelledText,
    ModelVersion,
    ModelAlias,
    Verdict,
    Training,
    TrainingOrder,
    Certificate,
    ThresholdRaise,
    LabelRule,
    ResultsClaim,
    MaxBatch,
    Attempt,
    MachineLabel,
    BarredText,
    Spending,
    LabellerState,
    Review,
    ApiKey,
    Usage,
    IdempotentCall,
    TextLease,
    DeadLetter,
)

_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")
_ROLE = re.compile(r":[a-z]+:(?=`)")


def file_stem(record: type) -> str:
    """Return ``classify-request`` for ClassifyRequest: examples and generated files are named so."""
    return _HUMP.sub("-", record.__name__).lower()


def record_schema(record: type) -> dict[str, Any]:
    """Return the schema of one record, whole in itself."""
    return {"$schema": _DRAFT, **plain(msgspec.json.schema(record))}


def component_schemas(records: tuple[type, ...], ref_template: str) -> dict[str, Any]:
    """Return the schemas of ``records`` and all they refer to, by name; ``ref_template`` holds ``{name}``."""
    _, components = msgspec.json.schema_components(records, ref_template=ref_template)
    return {name: plain(schema) for name, schema in components.items()}


def plain(schema: Any) -> Any:
    """Return ``schema`` with descriptions that are the same text for all, without markup of Sphinx."""
    # Python 3.13 strips the indentation of docstrings and earlier ones don't.
    if isinstance(schema, dict):
        return {
            key: prose(value) if key == "description" and isinstance(value, str) else plain(value)
            for key, value in schema.items()
        }
    if isinstance(schema, list):
        return [plain(item) for item in schema]
    return schema


def prose(docstring: str) -> str:
    """Return a docstring without its indentation and without markup of Sphinx."""
    return _ROLE.sub("", inspect.cleandoc(docstring).replace("``", "`"))


# Raised with every change of the wire; the first part never, because old records must decode for ever.
WIRE_VERSION: Final = "1.10.0"

GENERATED: Final = Path(__file__).parent / "generated"

_OURS = frozenset({"worker", "trainer", "labeller", "gateway"})
_KAFKA_BINDING = "0.5.0"
_TEXT = {"type": "string"}
_DIGITS = {"type": "string", "pattern": "^[0-9]+$"}
_CONTENT_TYPE = {"type": "string", "default": headers.JSON, "enum": [headers.JSON, headers.MSGPACK]}
_COPIED = dict.fromkeys(headers.COPIED, _TEXT)
_REQUEST_HEADERS: dict[str, dict[str, Any]] = {
    headers.TIMEOUT_MS: _DIGITS,
    headers.ATTEMPT: _DIGITS,
    headers.EXPLAIN: {"type": "string", "enum": ["0", "1"]},
    headers.CALL: {"type": "string", "pattern": "^[0-9a-f]{64}/[0-9]+$"},
    **_COPIED,
}
_OWN_HEADERS: dict[type, dict[str, dict[str, str]]] = {
    ClassifyRequest: _REQUEST_HEADERS,
    ClassifyResult: _COPIED,
    LabelledText: {headers.BY: _TEXT},
}


def document() -> dict[str, Any]:
    """Return the AsyncAPI 3.0 document of all topics, without a prefix and with the default partitions."""
    every = topics()
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "headrace",
            "version": WIRE_VERSION,
            "description": "Text is published to Kafka, its label is read from Kafka. Operations are headrace's own: "
            "others send what it receives.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": headers.JSON,
        "channels": {topic.name: _channel(topic) for topic in every},
        "operations": dict(operation for topic in every for operation in _operations(topic)),
        "components": {
            "messages": {name: message for topic in every for name, message in _messages(topic).items()},
            "schemas": component_schemas(
                tuple(record for record in RECORDS if record is not DeadLetter), "#/components/schemas/{name}"
            ),
        },
    }


def render() -> dict[str, bytes]:
    """Return the generated files' contents by file name."""
    files = {f"{file_stem(record)}.schema.json": record_schema(record) for record in RECORDS}
    files["asyncapi.json"] = document()
    return {
        name: msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n" for name, content in files.items()
    }


def main(arguments: Sequence[str], out: TextIO, folder: Path = GENERATED) -> int:
    """Write the files into ``folder``, or with ``--check`` compare; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m headrace_schemas.asyncapi", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 when a file is out of date")
    check: bool = parser.parse_args(arguments).check
    files = render()
    kept = {path.name: path.read_bytes() for path in folder.glob("*.json")}
    stale = sorted(name for name in files.keys() | kept.keys() if files.get(name) != kept.get(name))
    if check:
        out.writelines(f"{folder / name} is out of date: run python -m headrace_schemas.asyncapi\n" for name in stale)
        return int(bool(stale))
    folder.mkdir(exist_ok=True)
    for name in stale:
        path = folder / name
        if name in files:
            path.write_bytes(files[name])
        else:
            path.unlink()
        out.write(f"{path} {'written' if name in files else 'removed'}\n")
    return 0


def _channel(topic: Topic) -> dict[str, Any]:
    settings = {key: _setting(key, value) for key, value in sorted(topic.settings().items())}
    return {
        "address": topic.name,
        "title": topic.title,
        "description": f"Partitioning: {topic.partitioning}. Written by {', '.join(topic.writers)}; "
        f"read by {', '.join(topic.readers)}.",
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in _messages(topic)},
        "bindings": {
            "kafka": {
                "topic": topic.name,
                "partitions": topic.partitions,
                "replicas": REPLICATION,
                "topicConfiguration": settings,
                "bindingVersion": _KAFKA_BINDING,
            }
        },
    }


def _setting(key: str, value: str) -> object:
    if key == "cleanup.policy":
        return value.split(",")
    return int(value) if value.lstrip("-").isdigit() else value


def _operations(topic: Topic) -> list[tuple[str, dict[str, Any]]]:
    name = "".join(part.capitalize() for part in topic.name.removeprefix("classify.").split("-"))
    roles = {"receive": topic.readers, "send": topic.writers}
    return [
        (
            f"{action}{name}",
            {
                "action": action,
                "channel": {"$ref": f"#/channels/{topic.name}"},
                "summary": f"{topic.title}: by {', '.join(role for role in ours if role in _OURS)}.",
            },
        )
        for action, ours in roles.items()
        if _OURS.intersection(ours)
    ]


def _messages(topic: Topic) -> dict[str, dict[str, Any]]:
    bindings = {"kafka": {"key": {"type": "string", "description": topic.key}, "bindingVersion": _KAFKA_BINDING}}
    if DeadLetter in topic.records:
        return {"DeadLetter": {**_dead_letter(), "bindings": bindings}}
    found: dict[str, dict[str, Any]] = {}
    for record in topic.records:
        own = _OWN_HEADERS.get(record, {})
        found[record.__name__] = {
            "title": record.__name__,
            "contentType": headers.JSON,
            "headers": {"type": "object", "properties": {headers.CONTENT_TYPE: _CONTENT_TYPE, **own}},
            "payload": {"$ref": f"#/components/schemas/{record.__name__}"},
            "bindings": bindings,
        }
    if ClassifyRequest in topic.records:
        found["BareText"] = {
            "title": "A bare text",
            "contentType": headers.TEXT,
            "headers": {
                "type": "object",
                "properties": {headers.CONTENT_TYPE: {"type": "string", "const": headers.TEXT}, **_REQUEST_HEADERS},
                "required": [headers.CONTENT_TYPE],
            },
            "payload": {"type": "string", "description": "The text itself in UTF-8."},
            "bindings": bindings,
        }
    return found


def _dead_letter() -> dict[str, Any]:
    ours = {
        **dict.fromkeys(("partition", "offset", "attempt"), _DIGITS),
        "timestamp": {"type": "string", "pattern": "^-?[0-9]+$"},
        **dict.fromkeys(("topic", "stage", "code", "message", "version"), _TEXT),
    }
    not_whole = {
        KEPT: {"type": "string", "enum": [CUT, ENCRYPTED, NOTHING]},
        SEALED_TO: {"type": "string", "pattern": "^[0-9a-f]{16}$"},
        VALUE_BYTES: _DIGITS,
    }
    return {
        "title": "DeadLetter",
        "summary": "The value, key and headers are the request's own, unless one of ours says what is kept of them; "
        "others say why it failed.",
        "headers": {
            "type": "object",
            "properties": {PREFIX + name: schema for name, schema in ours.items()} | not_whole,
            "required": [PREFIX + name for name in ours if name not in {"version", "attempt"}],
        },
        "payload": {"description": f"The request's bytes, unchanged; or what the header {KEPT} says."},
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], sys.stdout))
