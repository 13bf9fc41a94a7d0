"""JSON Schemas (2020-12) of the records, generated from the structs."""

from __future__ import annotations

import inspect
import re
from typing import Any, Final

import msgspec

from headrace_schemas.records import (
    Attempt,
    ClassifyRequest,
    ClassifyResult,
    DeadLetter,
    LabelledText,
    MaxBatch,
    ModelAlias,
    ModelVersion,
    ResultsClaim,
    Training,
    TrainingOrder,
    Verdict,
)

RECORDS: Final = (
    ClassifyRequest,
    ClassifyResult,
    LabelledText,
    ModelVersion,
    ModelAlias,
    Verdict,
    Training,
    TrainingOrder,
    ResultsClaim,
    MaxBatch,
    Attempt,
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
    return {"$schema": _DRAFT, **_plain(msgspec.json.schema(record))}


def component_schemas(records: tuple[type, ...], ref_template: str) -> dict[str, Any]:
    """Return the schemas of ``records`` and all they refer to, by name; ``ref_template`` holds ``{name}``."""
    _, components = msgspec.json.schema_components(records, ref_template=ref_template)
    return {name: _plain(schema) for name, schema in components.items()}


def _plain(schema: Any) -> Any:
    # Python 3.13 strips the indentation of docstrings and earlier ones don't: the same text for all, and no markup
    # of Sphinx in it.
    if isinstance(schema, dict):
        return {
            key: _prose(value) if key == "description" and isinstance(value, str) else _plain(value)
            for key, value in schema.items()
        }
    if isinstance(schema, list):
        return [_plain(item) for item in schema]
    return schema


def _prose(docstring: str) -> str:
    return _ROLE.sub("", inspect.cleandoc(docstring).replace("``", "`"))
