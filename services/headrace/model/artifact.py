"""Versions as files: an immutable artifact, named after its time and its content, in a folder or an object store."""

from __future__ import annotations

import hashlib
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from headrace.model import store
from headrace.model.artifact_format import MAX_FILE_BYTES, About, Canary, decode, encode
from headrace.model.errors import ArtifactError, StoreError, StoreFault
from headrace.model.integers import QuantizedNetwork
from headrace.model.places import Location, as_told

__all__ = ["About", "Artifact", "ArtifactError", "Canary", "assemble", "beside", "library_versions", "load", "save"]


@dataclass(frozen=True, eq=False)
class Artifact:
    """A version: its network in integers, its history, and the SHA-256 and size in bytes of its file."""

    network: QuantizedNetwork
    about: About
    sha256: str
    size: int

    @property
    def labels(self) -> tuple[str, ...]:
        """The names that answers index."""
        return self.network.labels

    @property
    def version(self) -> str:
        """The version's name: its time in UTC, when it has one, and the first 12 digits of its SHA-256."""
        prefix = self.sha256[:12]
        if self.about.created_at_ms is None:
            return prefix
        return f"{datetime.fromtimestamp(self.about.created_at_ms / 1000, UTC):%Y%m%dT%H%M%SZ}-{prefix}"


def assemble(network: QuantizedNetwork, about: About) -> Artifact:
    """The artifact of a network; the same network and history give the same SHA-256."""
    data = encode(network, about)
    return Artifact(network, about, hashlib.sha256(data).hexdigest(), len(data))


def save(artifact: Artifact, where: Location | str) -> None:
    """Write an artifact; no reader sees a part of it (see :mod:`headrace.model.store`).

    A ``str`` is what the operator said, see :func:`headrace.model.places.as_told`. Raises StoreError when it can't be
    written.
    """
    data = encode(artifact.network, artifact.about)
    if hashlib.sha256(data).hexdigest() != artifact.sha256:
        raise ArtifactError(
            f"{artifact.version} would not be written as it was read (by another release of safetensors?): "
            "copy its file instead"
        )
    store.write(as_told(where) if isinstance(where, str) else where, data, artifact.sha256[:12])


def load(where: Location | str, sha256: str | None = None, size: int | None = None) -> Artifact:
    """Read an artifact, and check it against the ``sha256`` and ``size`` of its registry record when they are given.

    A ``str`` is what the operator said, see :func:`headrace.model.places.as_told`; what a record says has to be
    located below an allowed place before. Raises ArtifactError when it is not the one recorded, or damaged, hostile or
    of another format; StoreError, which is one, when there is no file or the store can't be reached.
    """
    where = as_told(where) if isinstance(where, str) else where
    data = read_checked(where, sha256, size)
    network, about = decode(data, where.uri)
    return Artifact(network, about, hashlib.sha256(data).hexdigest(), len(data))


def read_checked(where: Location, sha256: str | None = None, size: int | None = None) -> bytes:
    """The bytes of an artifact, checked as :func:`load` does and not yet parsed. Raises as it does."""
    found = store.size_of(where)
    if found is None:
        raise StoreError(f"{where}: there is no such artifact", StoreFault.ABSENT)
    if size is not None and found != size:
        raise ArtifactError(f"{where} has {found} bytes, its record says {size}: truncated, or another file")
    if found > MAX_FILE_BYTES:
        raise ArtifactError(f"{where} has {found} bytes, allowed are {MAX_FILE_BYTES}")
    data = store.read(where, found)
    if len(data) != found:
        raise ArtifactError(f"{where} has {found} bytes, and the store gave {len(data)} of them")
    digest = hashlib.sha256(data).hexdigest()
    if sha256 is not None and digest != sha256:
        raise ArtifactError(f"{where} has the SHA-256 {digest}, its record says {sha256}: altered, or another file")
    return data


def beside(where: Location) -> tuple[Location, Location]:
    """Where the curve of the compression lies beside the artifact: as JSON and as a picture."""
    return where.beside(".curve.json"), where.beside(".curve.svg")


def library_versions() -> dict[str, str]:
    """What an artifact is made with: Python, headrace and the libraries that touch its numbers."""
    versions = {"python": platform.python_version(), "numpy": np.__version__}
    for name in ("headrace", "numba", "safetensors", "torch"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            # torch is not part of a worker's environment.
            continue
    return versions
