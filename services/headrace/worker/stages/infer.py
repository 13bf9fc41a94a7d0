"""Infer: texts through the model. A text that the model fails on is found by halving its batch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from traceback import walk_tb

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.model.backends.interface import Answers, Backend
from headrace.model.explanation import explainer_of
from headrace.model.words import HASHING, Texts, hash_texts, join_texts
from headrace.process.logs import event
from headrace.worker.dead_letter_records import Failure
from headrace.worker.request_values import FAILED
from headrace_schemas.records import Explanation, Profile


class Breaker:
    """Opens when the model fails on everything, before the worker dead-letters a topic of good requests.

    When the model fails on a batch, its canaries (texts that the version carries, with their labels) are tried. If they
    are answered, some request is to blame. If not, the model is, and after ``threshold`` such failures in a row the
    breaker opens. It closes when the canaries are answered again, so a rollback lets the worker go on by itself.
    """

    def __init__(self, threshold: int = 3) -> None:
        self._threshold = threshold
        self._failures = 0

    @property
    def open(self) -> bool:
        return self._failures >= self._threshold

    def failed(self, *, canaries_answered: bool) -> None:
        """The model failed on a batch, and the canaries were tried."""
        self._failures = 0 if canaries_answered else self._failures + 1

    def succeeded(self) -> None:
        self._failures = 0


MICROS = 1_000_000
"""Scores are written with six decimals."""


class ModelBrokenError(Exception):
    """The model fails on its canaries too. The batch has no answers."""


class Model(msgspec.Struct, frozen=True, eq=False):
    """A loaded version. ``canaries`` are texts in UTF-8, each with the label that the new version gave to it.

    An answer whose score is below ``threshold`` has no label. ``profile`` says how the version answered its test rows.
    """

    version: str
    labels: tuple[str, ...]
    backend: Backend
    canaries: tuple[tuple[bytes, str], ...] = ()
    threshold: float | None = None
    profile: Profile | None = None
    max_tokens: int | None = None
    """Most words of a text that the version reads, split by ``hashing``; None if not known."""
    hashing: str = HASHING

    def truncated(self, texts: Texts) -> int:
        """How many of ``texts`` have more words than the version reads.

        A text of at most two bytes for each such word is not counted: it would have to be nearly all punctuation.
        """
        if self.max_tokens is None:
            return 0
        places = np.flatnonzero(texts.lengths() > 2 * self.max_tokens).tolist()
        if not places:
            return 0
        long = [texts[place] for place in places]
        _, starts = hash_texts(*join_texts(long, self.hashing), self.max_tokens + 1, self.hashing)
        return int((np.diff(starts) > self.max_tokens).sum())

    def canaries_answered(self) -> bool:
        """Whether every canary gets its label."""
        try:
            answers = self.backend.classify([text for text, _ in self.canaries])
        except Exception as error:  # noqa: BLE001 - a model may raise anything
            event("canaries.failed", level="error", version=self.version, error=_said(error))
            return False
        given = [self.labels[label] for label in answers.labels]
        return given == [label for _, label in self.canaries]


class Inferred(msgspec.Struct, frozen=True, eq=False):
    """For every text the index of its label ``int32[n]`` or FAILED, its score in millionths ``int64[n]``, and its best
    (label, score) pairs. ``failures`` and ``explanations`` are by index of the text; ``rankings`` is empty when none
    was asked for.
    """

    labels: NDArray[np.int32]
    micros: NDArray[np.int64]
    failures: dict[int, Failure]
    rankings: list[list[tuple[int, float]]]
    explanations: dict[int, Explanation] = {}


def infer(model: Model, texts: Sequence[bytes], breaker: Breaker, *, ranking: int = 0) -> Inferred:
    """Answer ``texts``. A text that the model fails on gets a Failure, the others get their answers.

    Raises ModelBrokenError when the canaries fail too.
    """
    if not texts:
        return Inferred(np.empty(0, np.int32), np.empty(0, np.int64), {}, [])
    try:
        inferred = _columns(model.backend.classify(texts, ranking))
    except Exception as error:
        answered = model.canaries_answered()
        breaker.failed(canaries_answered=answered)
        if not answered:
            raise ModelBrokenError(f"{model.version} failed on a batch and on its canaries: {_said(error)}") from error
        return _halve(model, texts, error, ranking)
    breaker.succeeded()
    return inferred


def explain(model: Model, texts: Sequence[bytes], explained: Sequence[int], inferred: Inferred) -> Inferred:
    """``inferred`` with explanations of the texts at the indexes ``explained``.

    A text that can't be explained fails, as one that can't be answered does.
    """
    explanations: dict[int, Explanation] = {}
    failures = dict(inferred.failures)
    labels = inferred.labels.copy()
    for text in explained:
        if text in failures:
            continue
        try:
            explanations[text] = explainer_of(model.backend.artifact).explain(texts[text].decode())
        except Exception as error:  # noqa: BLE001 - of one text; its neighbours are answered
            failures[text] = Failure("infer", "not-explained", f"this text could not be explained: {_said(error)}")
            labels[text] = FAILED
    return msgspec.structs.replace(inferred, labels=labels, failures=failures, explanations=explanations)


def _halve(model: Model, texts: Sequence[bytes], error: Exception, ranking: int) -> Inferred:
    if len(texts) == 1:
        failure = Failure("infer", "model-failed", f"the model failed on this text alone: {_said(error)}")
        return Inferred(np.array([FAILED], np.int32), np.zeros(1, np.int64), {0: failure}, [[]] if ranking else [])
    middle = len(texts) // 2
    parts: list[Inferred] = []
    for half in (texts[:middle], texts[middle:]):
        try:
            parts.append(_columns(model.backend.classify(half, ranking)))
        except Exception as again:  # noqa: BLE001 - a model may raise anything; its neighbours are answered
            parts.append(_halve(model, half, again, ranking))
    first, second = parts
    return Inferred(
        np.concatenate([first.labels, second.labels]),
        np.concatenate([first.micros, second.micros]),
        first.failures | {middle + place: failure for place, failure in second.failures.items()},
        first.rankings + second.rankings,
    )


def _said(error: Exception) -> str:
    """The type of ``error`` and the line that raised it. The message is left out, because it may quote the text."""
    lines = [f" at {Path(frame.f_code.co_filename).name}:{line}" for frame, line in walk_tb(error.__traceback__)]
    return type(error).__name__ + (lines[-1] if lines else "")


def _columns(answers: Answers) -> Inferred:
    micros = in_micros(answers.scores)
    if answers.ranking.shape[1] == 0:
        return Inferred(answers.labels, micros, {}, [])
    scores = (in_micros(answers.ranking_scores) / MICROS).tolist()
    rankings = [
        list(zip(labels, row, strict=True)) for labels, row in zip(answers.ranking.tolist(), scores, strict=True)
    ]
    return Inferred(answers.labels, micros, {}, rankings)


def in_micros(scores: NDArray[np.float32]) -> NDArray[np.int64]:
    """Scores in [0, 1] as whole millionths."""
    return np.rint(scores * np.float64(MICROS)).astype(np.int64)
