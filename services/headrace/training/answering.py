"""The labels that a backend gives texts."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from headrace.core.label_names import label_name
from headrace.model.backends.interface import Backend

_BATCH = 256


class Answered(msgspec.Struct, frozen=True):
    """For every text its label and the label's score, in [0, 1]."""

    labels: tuple[str, ...]
    scores: tuple[float, ...]


def answer(backend: Backend, texts: Sequence[str]) -> list[str]:
    """The label that ``backend`` gives each text, as :func:`~headrace.core.label_names.label_name` spells it.

    An artifact of before names were cleaned may spell it otherwise.
    """
    return list(answer_scored(backend, texts).labels)


def answer_scored(backend: Backend, texts: Sequence[str]) -> Answered:
    """What ``backend`` answers to each text. A lone surrogate, which UTF-8 has no place for, becomes ``?``."""
    names = [label_name(label) for label in backend.artifact.labels]
    labels: list[str] = []
    scores: list[float] = []
    for first in range(0, len(texts), _BATCH):
        answers = backend.classify([text.encode("utf-8", "replace") for text in texts[first : first + _BATCH]])
        labels += [names[place] for place in answers.labels]
        scores += answers.scores.tolist()
    return Answered(tuple(labels), tuple(scores))
