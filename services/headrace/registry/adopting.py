"""From an artifact that lies anywhere to one that lies in the store, where workers may open it."""

from __future__ import annotations

from headrace.model import store
from headrace.model.artifact import Artifact, load, read_checked
from headrace.model.places import Location, Places, absolute, as_told, place_of


def versions_folder(base: str, name: str) -> str:
    """The folder of the artifacts of model ``name`` in the store ``base``, a path or URI, as a URI."""
    return f"{place_of(base).uri.rstrip('/')}/{name}/versions"


def adopt(told: str, *, base: str, name: str, places: Places) -> tuple[Artifact, Location]:
    """The artifact that the operator names, and where it lies below ``places``: there already, or as a copy below
    ``base``, the store.

    Raises ArtifactError when it is none, or the store, which has to be one of ``places``, can't be written to.
    """
    whole = absolute(told)
    if places.has(whole):
        where = places.locate(whole)
        return load(where), where
    given = as_told(told)
    artifact = load(given)
    where = places.locate(f"{versions_folder(base, name)}/{artifact.version}.safetensors")
    # Its bytes as they are: another release of a library would write others.
    store.write(where, read_checked(given, artifact.sha256, artifact.size), artifact.sha256[:12])
    return artifact, where
