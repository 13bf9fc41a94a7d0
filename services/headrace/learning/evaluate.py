"""What a classifier answers: labels and scores of texts, how fast they come, and whether the scores are calibrated.

It loads no torch, so that a version is evaluated where only workers run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from headrace.core.drift import TENTHS, tenths
from headrace.core.label_names import label_name
from headrace.learning.data.files import Rows
from headrace.model.backends.interface import Backend
from headrace.model.network import Network, float_logits
from headrace.model.words import split_words
from headrace_schemas.records import Profile

if TYPE_CHECKING:
    from headrace.learning.distributed.collectives import Exchange

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


_TIMED_TEXTS = 2048
_ROUNDS = 5
_LONG_WORDS = 256
_TEXTS_AT_ONCE = 256


class Examined(msgspec.Struct, frozen=True, kw_only=True):
    """Labels of test rows, those of all ranks in one order: the true ones, and those of the int8 ``answers`` with their
    scores, and of the fp32 original.
    """

    truth: tuple[str, ...]
    answers: Answered
    float_answers: tuple[str, ...]


def examine(backend: Backend, original: Network, rows: Rows, exchange: Exchange) -> Examined:
    """Answer this rank's ``rows`` twice, and gather what all ranks answered."""
    pieces = (rows.texts[first : first + _TEXTS_AT_ONCE] for first in range(0, len(rows), _TEXTS_AT_ONCE))
    best = [place for piece in pieces for place in np.argmax(float_logits(original, piece), axis=1)]
    own = Examined(
        truth=rows.labels,
        answers=answer_scored(backend, rows.texts),
        float_answers=tuple(original.labels[place] for place in best),
    )
    told = exchange.gather(own, Examined)
    return Examined(
        truth=_joined([one.truth for one in told]),
        answers=Answered(
            _joined([one.answers.labels for one in told]),
            tuple(score for one in told for score in one.answers.scores),
        ),
        float_answers=_joined([one.float_answers for one in told]),
    )


def latency_us(backend: Backend, texts: Sequence[str], monotonic: Callable[[], float]) -> float:
    """Microseconds a text in batches, on this thread: the best of some rounds, which other processes disturb least.

    Raises ValueError without texts.
    """
    if not texts:
        raise ValueError("no texts to measure on")
    timed = [texts[i % len(texts)] for i in range(_TIMED_TEXTS)]
    rounds = []
    for _ in range(_ROUNDS):
        begun = monotonic()
        answer_scored(backend, timed)
        rounds.append(monotonic() - begun)
    return min(rounds) / len(timed) * 1e6


def longest_us(backend: Backend, texts: Sequence[str], max_tokens: int, monotonic: Callable[[], float]) -> float:
    """About how many microseconds a text of ``max_tokens`` words takes, made of the words of ``texts``."""
    words = split_words(" ".join(texts[:_LONG_WORDS]), _LONG_WORDS) or ["a"]
    measured = " ".join((words * _LONG_WORDS)[:_LONG_WORDS])
    # An answer's time is linear in the words that are read.
    return latency_us(backend, [measured], monotonic) * max_tokens / _LONG_WORDS


def _joined(parts: Sequence[Sequence[str]]) -> tuple[str, ...]:
    return tuple(label for part in parts for label in part)


_BINS = 15


def calibration_error(scores: Sequence[float], right: Sequence[bool]) -> float:
    """The expected calibration error in [0, 1]: over bins of the score, the mean distance of score and accuracy.

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, with its 15 bins. Raises ValueError without
    scores.
    """
    if not scores:
        raise ValueError("no scores to judge")
    given, hits = np.asarray(scores, np.float64), np.asarray(right, np.float64)
    bins = np.minimum((given * _BINS).astype(np.int64), _BINS - 1)
    counts = np.bincount(bins, minlength=_BINS)
    distance = np.abs(np.bincount(bins, hits, _BINS) - np.bincount(bins, given, _BINS))
    return float(distance.sum() / counts.sum())


def threshold_for(scores: Sequence[float], accept: float) -> float:
    """The score that the share ``accept`` of ``scores`` reaches, as a float32, which scores are."""
    return float(np.quantile(np.asarray(scores, np.float32), 1 - accept, method="lower"))


def profile_of(answers: Answered, labels: Sequence[str]) -> Profile:
    """How ``answers`` share out among ``labels`` and over the tenths of the score."""
    places = {label: place for place, label in enumerate(labels)}
    counts = np.bincount([places[label] for label in answers.labels], minlength=len(labels))
    by_score = tenths(answers.scores)
    rows = len(answers.labels)
    return Profile(tuple((counts / rows).tolist()), tuple(by_score[tenth] / rows for tenth in range(TENTHS)))
