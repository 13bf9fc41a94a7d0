"""Answers every text with the first label: what a worker costs without its model. For benchmarks alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from headrace.model.artifact import Artifact
from headrace.model.backends.interface import Answers


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
