"""From what a user calls a model, a path or URI, or from a version's record, to a checked artifact."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from headrace.model.artifact import Artifact, ArtifactError, load
from headrace.model.places import Places
from headrace.model.signing import verify
from headrace_schemas.records import ModelVersion


def is_location(model: str) -> bool:
    """Whether ``model`` is a path or URI; an alias has no slash and no dot, and no file has its name."""
    return "/" in model or "." in model or Path(model).is_file()


def load_named(model: str) -> Artifact:
    """Load the artifact at a path or URI that a user named. Raises ArtifactError, also for what is an alias alone."""
    if "/" in model or Path(model).exists():
        return load(model)
    raise ArtifactError(
        f"{model}: there is no such artifact here. Aliases and versions, which have no dot in them, are names on "
        "Kafka: `headrace models show NAME` says where their artifact is."
    )


def load_version(record: ModelVersion, trusted: Collection[str], places: Places) -> Artifact:
    """Load the artifact of a version, checked against its record, and before that the record's signature.

    ``trusted`` as in :func:`headrace.model.signing.verify`; ``places`` are those where versions may lie. Raises
    SignatureError and StoreError, which are ArtifactErrors, before anything is opened, and ArtifactError when the file
    is absent, or not the one recorded.
    """
    verify(record, trusted)
    artifact = load(places.locate(record.uri), record.sha256, record.size)
    if artifact.labels != record.labels:
        raise ArtifactError(f"{record.uri} has the labels {artifact.labels}, the record of {record.version} others")
    if artifact.about.lineage != record.lineage:
        # The gate goes by it, and no signature covers the record's own.
        raise ArtifactError(f"{record.uri} has another lineage than the record of {record.version}")
    return artifact
