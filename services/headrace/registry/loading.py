"""From what a user calls a model, a path, a URI or an alias, to a checked artifact."""

from __future__ import annotations

from pathlib import Path

from headrace.core.errors import UserError
from headrace.kafka.interface import Cluster
from headrace.model.artifact import Artifact, load
from headrace.registry.models_log import ModelsLog


class NoSuchAliasError(UserError):
    """The alias points at no version."""


def is_location(model: str) -> bool:
    """Whether ``model`` is a path or URI; an alias has no slash and no dot, and no file has its name."""
    return "/" in model or "." in model or Path(model).is_file()


async def load_model(model: str, *, name: str, cluster: Cluster, models_topic: str) -> Artifact:
    """Load the artifact at a path or URI, or the version that alias ``model`` of model ``name`` points at.

    Raises NoSuchAliasError, ArtifactError, and a KafkaError when the topic can't be read.
    """
    if is_location(model):
        return load(model)
    log = ModelsLog(cluster, models_topic)
    await log.start()
    try:
        version = log.resolve(name, model)
    finally:
        await log.stop()
    if version is None:
        known = ", ".join(sorted(alias for of, alias in log.aliases if of == name)) or "none"
        raise NoSuchAliasError(
            f"Model {name!r} has no alias {model!r} on {models_topic} (there: {known}). Publish a version with "
            f"`headrace models publish FILE --alias {model}`, or give the worker a file."
        )
    return load(version.uri, version.sha256, version.size)
