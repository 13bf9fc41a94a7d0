"""Whether scores are what they say: calibration error, the threshold that lets a share through, and the profile."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from headrace.core.drift import TENTHS, tenths
from headrace.learning.evaluate import Answered
from headrace_schemas.records import Profile

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
