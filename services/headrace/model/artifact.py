"""Versions as files: an immutable artifact, named after its time and its content, on any fsspec URI."""

from __future__ import annotations

import hashlib
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from headrace.model import store
from headrace.model.artifact_format import MAX_FILE_BYTES, About, ArtifactError, Canary, decode, encode
from headrace.model.integers import QuantizedNetwork

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


def save(artifact: Artifact, uri: str) -> None:
    """Write an artifact to any fsspec URI or path; no reader sees a part of it (see :mod:`headrace.model.store`).

    Raises StoreError when it can't be written.
    """
    data = encode(artifact.network, artifact.about)
    if hashlib.sha256(data).hexdigest() != artifact.sha256:
        raise ArtifactError(
            f"{artifact.version} would not be written as it was read (by another release of safetensors?): "
            "copy its file instead"
        )
    store.write(uri, data, artifact.sha256[:12])


def load(uri: str, sha256: str | None = None, size: int | None = None) -> Artifact:
    """Read an artifact, and check it against the ``sha256`` and ``size`` of its registry record when they are given.

    Raises ArtifactError when it is not the one recorded, or damaged, hostile or of another format; StoreError, which is
    one, when there is no file or the store can't be reached.
    """
    found = store.size_of(uri)
    if found is None:
        raise store.StoreError(f"{uri}: there is no such artifact")
    if size is not None and found != size:
        raise ArtifactError(f"{uri} has {found} bytes, its record says {size}: truncated, or another file")
    if found > MAX_FILE_BYTES:
        raise ArtifactError(f"{uri} has {found} bytes, allowed are {MAX_FILE_BYTES}")
    data = store.read(uri, found)
    if len(data) != found:
        raise ArtifactError(f"{uri} has {found} bytes, and the store gave {len(data)} of them")
    digest = hashlib.sha256(data).hexdigest()
    if sha256 is not None and digest != sha256:
        raise ArtifactError(f"{uri} has the SHA-256 {digest}, its record says {sha256}: altered, or another file")
    network, about = decode(data, uri)
    return Artifact(network, about, digest, len(data))


def beside(uri: str) -> tuple[str, str]:
    """Where the curve of the compression lies beside the artifact at ``uri``: as JSON and as a picture."""
    return f"{uri}.curve.json", f"{uri}.curve.svg"


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
