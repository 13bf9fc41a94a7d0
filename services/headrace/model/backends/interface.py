"""What a backend is, and how to open one by name.

Answers every text with the first label: what a worker costs without its model. For benchmarks alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from headrace.model.artifact import Artifact

# name -> (module, class); imported when opened, because reference and cuda need torch and a worker has none.
_BACKENDS = {
    "cpu": ("headrace.model.backends.cpu", "CpuBackend"),
    "constant": ("headrace.model.backends.interface", "ConstantBackend"),
    "cuda": ("headrace.model.backends.cuda", "CudaBackend"),
    "reference": ("headrace.model.backends.reference", "ReferenceBackend"),
}
BACKENDS = tuple(_BACKENDS)


@dataclass(frozen=True, eq=False)
class Answers:
    """The answers to n texts, in their order.

    - ``labels`` int32[n]: the index of the largest logit, the lowest on a tie: the same on every backend;
    - ``scores`` float32[n]: its part of the softmax, for show;
    - ``ranking`` int32[n, k] and ``ranking_scores`` float32[n, k]: the k best labels, best first.
    """

    labels: NDArray[np.int32]
    scores: NDArray[np.float32]
    ranking: NDArray[np.int32]
    ranking_scores: NDArray[np.float32]


class Backend(Protocol):
    """One artifact made ready to answer. Texts are valid UTF-8 (the decode stage has seen to that).

    Calls from several threads are safe and give what single calls give. No answer depends on the texts beside it.
    """

    @property
    def name(self) -> str: ...
    @property
    def artifact(self) -> Artifact: ...
    def warm(self) -> None:
        """Compile or load what the first answer would otherwise wait for."""

    def logits(self, texts: Sequence[bytes]) -> NDArray[np.int64]:
        """``int64[n, C]``: the integers of :mod:`headrace.model.integers`, the same bits on every backend."""

    def classify(self, texts: Sequence[bytes], ranking: int = 0) -> Answers:
        """Labels and scores, and the ``ranking`` best labels of each text (capped at C)."""


def open_backend(name: str, artifact: Artifact, threads: int = 1) -> Backend:
    """Fold an artifact's tables and make the backend ``name`` (one of BACKENDS) ready for it.

    ``threads`` share a batch. Raises ValueError for an unknown name, BoundsError or FoldingError when the artifact
    can't be answered from on this machine, and UserError when this machine lacks what the backend computes on.
    """
    if name not in _BACKENDS:
        raise ValueError(f"there is no backend {name!r}; there are {', '.join(BACKENDS)}")
    module, kind = _BACKENDS[name]
    backend: Backend = getattr(import_module(module), kind)(artifact, threads)
    return backend


class ConstantBackend:
    """Fulfils :class:`~headrace.model.backends.interface.Backend`, but its integers are all zero."""

    name = "constant"

    def __init__(self, artifact: Artifact, threads: int = 1) -> None:  # noqa: ARG002 - as every backend is made
        self.artifact = artifact

    def warm(self) -> None:
        """There is nothing to warm."""

    def logits(self, texts: Sequence[bytes]) -> NDArray[np.int64]:
        return np.zeros((len(texts), len(self.artifact.labels)), np.int64)

    def classify(self, texts: Sequence[bytes], ranking: int = 0) -> Answers:
        count, labels = len(texts), len(self.artifact.labels)
        best = np.zeros((count, min(ranking, labels)), np.int32)
        share = np.float32(1 / labels)
        return Answers(np.zeros(count, np.int32), np.full(count, share), best, np.full(best.shape, share))
