"""Versions of a model as records, for tests that need their names and not their artifacts."""

from __future__ import annotations

from typing import Any

from headrace_schemas.records import Certificate, ModelVersion, ThresholdRaise


def version_of(version: str, *, at: int = 0, **fields: Any) -> ModelVersion:
    """Version ``version`` of model ``m``, created at ``at`` ms."""
    plain = {"uri": f"memory://{version}", "sha256": "0", "size": 1000, "labels": ("a", "b")}
    return ModelVersion(name="m", version=version, created_at_ms=at, **(plain | fields))


def certificate_of(version: str, *, name: str = "m", at: int = 0, threshold: float = 0.8) -> Certificate:
    """A certificate of ``version`` for at most 2 % wrong answers above ``threshold``, made at ``at`` ms."""
    return Certificate(
        name=name,
        version=version,
        threshold=threshold,
        disagree=0.02,
        confidence=0.95,
        rows=900,
        accepted=600,
        errors=4,
        bound=0.0152,
        coverage=0.6667,
        certified_at_ms=at,
    )


def raise_of(version: str, *, name: str = "m", at: int = 0, threshold: float = 0.9) -> ThresholdRaise:
    """A raise of ``version`` to ``threshold`` at ``at`` ms, because of disagreement."""
    return ThresholdRaise(
        name=name, version=version, threshold=threshold, rule="disagreement", reason="r", raised_at_ms=at
    )
