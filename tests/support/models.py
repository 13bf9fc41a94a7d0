"""Small models for tests of the worker: the label of a text is a plain function that the test can compute too."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence

import numpy as np

from headrace.model.backends.interface import Answers

LABELS = ("even", "odd", "other")


def label_of(text: str) -> str:
    return LABELS[zlib.crc32(text.encode()) % len(LABELS)]


class SumModel:
    """Fulfils the backend protocol as far as a worker uses it. ``poison`` says which texts raise, ``score`` is every
    answer's.
    """

    name = "sum"

    def __init__(self, poison: Callable[[bytes], bool] = lambda _: False, score: float = 1.0) -> None:
        self.poison = poison
        self.score = score
        self.batches: list[int] = []

    def classify(self, texts: Sequence[bytes], ranking: int = 0) -> Answers:
        self.batches.append(len(texts))
        for text in texts:
            if self.poison(text):
                raise FloatingPointError("told to fail")
        labels = np.array([zlib.crc32(text) % len(LABELS) for text in texts], np.int32)
        k = min(ranking, 1)
        scores = np.full(len(texts), self.score, np.float32)
        return Answers(labels, scores, labels[:, None][:, :k], scores[:, None][:, :k])
