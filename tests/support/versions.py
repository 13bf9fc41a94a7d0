"""Versions of a model as records, for tests that need their names and not their artifacts."""

from __future__ import annotations

from typing import Any

from headrace_schemas.records import ModelVersion


def version_of(version: str, *, at: int = 0, **fields: Any) -> ModelVersion:
    """Version ``version`` of model ``m``, created at ``at`` ms."""
    plain = {"uri": f"memory://{version}", "sha256": "0", "size": 1000, "labels": ("a", "b")}
    return ModelVersion(name="m", version=version, created_at_ms=at, **(plain | fields))
