"""An artifact as its record on the models topic."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from headrace.core.errors import UserError
from headrace.core.printable import printable
from headrace.model.artifact import Artifact
from headrace.model.artifact_format import weights_digest
from headrace.model.places import Location
from headrace.model.signing import SignatureError, verify
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
        untested=about.untested,
    )


class PublishedElsewhereError(UserError):
    """A version is on the models topic already, with another file or another place."""


def published_again(
    known: ModelVersion | None, record: ModelVersion, *, trusted: Collection[str], move: bool
) -> ModelVersion:
    """The record to publish where ``known`` is on the topic already: the first time is kept, and the place unless
    ``move``. A record that ``trusted`` keys did not sign counts for nothing: nobody would load it.

    Raises PublishedElsewhereError.
    """
    if known is None:
        return record
    try:
        verify(known, trusted)
    except SignatureError:
        return record
    what = f"Version {record.version} of model {record.name!r} was published"
    if known.sha256 != record.sha256:
        raise PublishedElsewhereError(
            f"{what} with another file: its SHA-256 is {known.sha256}, and that of this one {record.sha256}. A version "
            "never changes; train or assemble another one."
        )
    if known.uri != record.uri and not move:
        raise PublishedElsewhereError(
            f"{what} from {printable(known.uri)}, and workers load it from there. To point an alias at it: `headrace "
            f"models promote {record.version}`. If the file has moved: publish it with --move."
        )
    return msgspec.structs.replace(record, created_at_ms=known.created_at_ms)
