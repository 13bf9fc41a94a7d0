"""An artifact as its record on the models topic."""

from __future__ import annotations

from headrace.model.artifact import Artifact
from headrace.model.artifact_format import weights_digest
from headrace.model.places import Location
from headrace_schemas.records import ModelVersion


def version_record(artifact: Artifact, *, name: str, where: Location, now_ms: int) -> ModelVersion:
    """The record of ``artifact``, which lies there, as a version of model ``name``."""
    about = artifact.about
    return ModelVersion(
        name=name,
        version=artifact.version,
        uri=where.uri,
        path=where.path,
        sha256=artifact.sha256,
        size=artifact.size,
        labels=artifact.labels,
        created_at_ms=about.created_at_ms or now_ms,
        metrics=about.metrics,
        lineage=about.lineage,
        parent=about.parent,
        compression=about.compression,
        libraries=about.libraries,
        weights_sha256=weights_digest(artifact.network),
        profile=about.profile,
        threshold=about.threshold,
    )
