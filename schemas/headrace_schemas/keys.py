"""Keys of classify.models: one a version, an alias, a claimed results topic, an attempt at a partition."""

from __future__ import annotations

import re
from typing import assert_never

from headrace_schemas.errors import BadKeyError
from headrace_schemas.records import Attempt, ModelAlias, ModelsRecord, ModelVersion, ResultsClaim

# The slash parts a key, so no part may hold one; the rest is what Kafka allows in a topic's name, and a file's name.
_PART = re.compile(r"[A-Za-z0-9._-]{1,249}")


def version_key(name: str, version: str) -> bytes:
    """Return ``version/NAME/VERSION``; raises BadKeyError for a part that a key can't hold."""
    return _key("version", name=name, version=version)


def alias_key(name: str, alias: str) -> bytes:
    """Return ``alias/NAME/ALIAS``; raises BadKeyError for a part that a key can't hold."""
    return _key("alias", name=name, alias=alias)


def claim_key(results: str) -> bytes:
    """Return ``claim/RESULTS_TOPIC``; raises BadKeyError for a part that a key can't hold."""
    return _key("claim", results=results)


def attempt_key(results: str, partition: int) -> bytes:
    """Return ``attempt/RESULTS_TOPIC/PARTITION``; raises BadKeyError for a part that a key can't hold."""
    return _key("attempt", results=results, partition=str(partition))


def models_key(record: ModelsRecord) -> bytes:
    """Return the key under which ``record`` is kept; raises BadKeyError as the functions above."""
    match record:
        case ModelVersion():
            return version_key(record.name, record.version)
        case ModelAlias():
            return alias_key(record.name, record.alias)
        case ResultsClaim():
            return claim_key(record.results)
        case Attempt():
            return attempt_key(record.results, record.partition)
        case _:
            assert_never(record)


def _key(kind: str, **parts: str) -> bytes:
    for field, part in parts.items():
        if not _PART.fullmatch(part):
            raise BadKeyError(field, f"{part!r} must be 1 to 249 of letters, digits, '.', '_' and '-'")
    return "/".join((kind, *parts.values())).encode()
