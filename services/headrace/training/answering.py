"""The labels that a backend gives texts."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.model.backends.interface import Backend

_BATCH = 256


def answer(backend: Backend, texts: Sequence[str]) -> list[str]:
    """The label that ``backend`` gives each text. A lone surrogate, which UTF-8 has no place for, becomes ``?``."""
    labels = backend.artifact.labels
    answers: list[str] = []
    for first in range(0, len(texts), _BATCH):
        encoded = [text.encode("utf-8", "replace") for text in texts[first : first + _BATCH]]
        answers += [labels[place] for place in backend.classify(encoded).labels]
    return answers
