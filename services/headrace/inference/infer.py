"""Infer: texts through the model, off the event loop; a record that breaks its batch is found and set apart."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from headrace.core.breaker import Breaker, Suspect
from headrace.inference.decode import Failure
from headrace.logs import event
from headrace.model.backends.interface import Answers, Backend
from headrace_schemas.records import Profile


class ModelBrokenError(Exception):
    """The model fails on texts that its version is known to answer; nothing was answered."""


class Model(msgspec.Struct, frozen=True, eq=False):
    """A loaded version. ``canaries`` are texts in UTF-8 with the label that the version gave them when it was made.

    An answer whose score is below ``threshold`` has no label. ``profile`` is how the version answered its test rows.
    """

    version: str
    labels: tuple[str, ...]
    backend: Backend
    canaries: tuple[tuple[bytes, str], ...] = ()
    threshold: float | None = None
    profile: Profile | None = None

    def canaries_answered(self) -> bool:
        """Whether every canary still gets its label."""
        try:
            answers = self.backend.classify([text for text, _ in self.canaries])
        except Exception as error:  # noqa: BLE001 - whatever a model raises accuses it
            event("canaries.failed", level="error", version=self.version, error=repr(error))
            return False
        given = [self.labels[label] for label in answers.labels]
        return given == [label for _, label in self.canaries]


class Inferred(msgspec.Struct, frozen=True):
    """For every text its label's index, or why it has none, its score, and its best (label, score) pairs.

    ``rankings`` is empty when none was asked for.
    """

    labels: list[int | Failure]
    scores: list[float]
    rankings: list[list[tuple[int, float]]]


def infer(model: Model, texts: Sequence[bytes], breaker: Breaker, *, ranking: int = 0) -> Inferred:
    """Answer ``texts``; a text that the model fails on gets a Failure and its neighbours their answers.

    Raises ModelBrokenError when the canaries fail too.
    """
    if not texts:
        return Inferred([], [], [])
    try:
        inferred = _columns(model.backend.classify(texts, ranking))
    except Exception as error:
        if breaker.failed(canaries_answered=model.canaries_answered()) is Suspect.MODEL:
            raise ModelBrokenError(f"{model.version} failed on a batch and on its canaries: {error!r}") from error
        return _halve(model, texts, error, ranking)
    breaker.succeeded()
    return inferred


def _halve(model: Model, texts: Sequence[bytes], error: Exception, ranking: int) -> Inferred:
    if len(texts) == 1:
        failure = Failure("infer", "model-failed", f"the model failed on this text alone: {error!r}")
        return Inferred([failure], [0.0], [[]] if ranking else [])
    labels: list[int | Failure] = []
    scores: list[float] = []
    rankings: list[list[tuple[int, float]]] = []
    middle = len(texts) // 2
    for half in (texts[:middle], texts[middle:]):
        try:
            part = _columns(model.backend.classify(half, ranking))
        except Exception as again:  # noqa: BLE001 - whatever a model raises on one text must not reach its neighbours
            part = _halve(model, half, again, ranking)
        labels += part.labels
        scores += part.scores
        rankings += part.rankings
    return Inferred(labels, scores, rankings)


def _columns(answers: Answers) -> Inferred:
    if answers.ranking.shape[1] == 0:
        return Inferred(answers.labels.tolist(), answers.scores.tolist(), [])
    rankings = [
        list(zip(labels, scores, strict=True))
        for labels, scores in zip(answers.ranking.tolist(), answers.ranking_scores.tolist(), strict=True)
    ]
    return Inferred(answers.labels.tolist(), answers.scores.tolist(), rankings)
