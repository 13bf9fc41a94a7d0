"""Opening: from an artifact to a version that can answer at once, checked on its own canaries."""

from __future__ import annotations

from collections.abc import Collection

from headrace.core.errors import UserError
from headrace.inference.infer import Model
from headrace.inference.plain_answers import plain_answers
from headrace.model.artifact import Artifact
from headrace.model.backends.interface import open_backend
from headrace.model.places import Places
from headrace.registry.loading import load_version
from headrace_schemas.records import ModelVersion


class UnfitError(UserError):
    """A version loads, but does not answer as it did where it was made."""


def open_version(record: ModelVersion, backend: str, trusted: Collection[str], places: Places) -> Model:
    """Load the version of ``record``, check it and make it ready. It blocks: for a thread of its own.

    ``trusted`` are the public keys of which one has to have signed it, if there are any; ``places`` are those where it
    may lie. Raises ArtifactError, BoundsError, FoldingError and UnfitError.
    """
    return open_model(load_version(record, trusted, places), backend, record.version)


def open_model(artifact: Artifact, backend: str, version: str) -> Model:
    """Make ``artifact`` ready to answer as ``version`` by the backend of that name: folded, compiled, verified.

    Raises BoundsError, FoldingError, and UnfitError when a canary does not get its label.
    """
    # The worker's own threads each take a batch; within a batch the backend needs none.
    opened = open_backend(backend, artifact, 1)
    opened.warm()
    plain_answers(version, artifact.labels).warm()
    about = artifact.about
    if about.profile is not None and len(about.profile.labels) != len(artifact.labels):
        raise UnfitError(
            f"{version}: its profile has {len(about.profile.labels)} labels, it has {len(artifact.labels)}"
        )
    # The constant backend asks no model, so there is nothing to verify.
    canaries = () if backend == "constant" else about.canaries
    model = Model(
        version,
        artifact.labels,
        opened,
        canaries=tuple((canary.text.encode(), canary.label) for canary in canaries),
        threshold=about.threshold,
        profile=about.profile,
        max_tokens=artifact.network.max_tokens,
        hashing=artifact.network.hashing,
    )
    if not model.canaries_answered():
        raise UnfitError(
            f"{version} does not give its canary texts the labels that it gave them where it was made: this machine "
            "or this release computes something else, so its answers could be wrong"
        )
    return model
