"""Drift: how far a version's answers are from its answers on its test rows, by the population stability index.

PSI is the sum over bins of (a - e) ln(a / e), with e the share expected in a bin and a the one seen. It is symmetric:
Jeffreys' divergence (1946), both directions of Kullback and Leibler's added. Below 0.1 is read as no change, above 0.25
as a large one (Siddiqi, Credit Risk Scorecards, 2006). Without any change its expectation is about
(bins - 1) (1 / seen + 1 / expected from) (Yurdakul and Naranjo, Statistical properties of the population stability
index, Journal of Risk Model Validation, 2020), so nothing is said before enough was seen for so many bins.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from headrace_schemas.records import ClassifyResult, ModelVersion, Profile

TENTHS = 10
SMOOTHING = 0.5
NOISE = 0.02
"""How much of a PSI that is shown may come from sampling alone."""
_PANES = 10


class Drift(msgspec.Struct, frozen=True):
    """The PSI of the labels and of the confidence over the last ``answers`` answers."""

    labels: float
    confidence: float
    answers: int


def psi(expected: Sequence[float], seen: Sequence[float], count: float) -> float:
    """The PSI of two vectors of fractions. It is 0 when they are equal, unbounded above, and symmetric.

    An empty bin has no logarithm. So both vectors are taken as counts of ``count`` answers, and half an answer is added
    to each bin (Krichevsky and Trofimov, 1981). Raises ValueError when they don't have the same bins.
    """
    total = count + SMOOTHING * len(expected)
    index = 0.0
    for one, other in zip(expected, seen, strict=True):
        before, now = (one * count + SMOOTHING) / total, (other * count + SMOOTHING) / total
        index += (now - before) * math.log(now / before)
    return index


def check_profile(profile: Profile, labels: int) -> None:
    """Raises ValueError unless ``profile`` fits a version with ``labels`` labels.

    Fractions that don't add up to 1 are allowed: all answers drift from them.
    """
    if len(profile.labels) != labels or len(profile.confidence) != TENTHS:
        raise ValueError(
            f"its profile has {len(profile.labels)} labels and {len(profile.confidence)} tenths, expected {labels} and "
            f"{TENTHS}"
        )
    if not all(0 <= share <= 1 for share in (*profile.labels, *profile.confidence)):
        raise ValueError("its profile holds a share that is not from 0 to 1")


def enough(bins: int) -> int:
    """How many answers a PSI over ``bins`` bins needs to be more than the noise of sampling."""
    return math.ceil((bins - 1) / NOISE)


def tenths(scores: Iterable[float]) -> Counter[int]:
    """How many of ``scores`` are in each tenth of [0, 1], 0 to 9; 1.0 is in the last."""
    counts = Counter([int(score * TENTHS) for score in scores])
    if TENTHS in counts:
        counts[TENTHS - 1] += counts.pop(TENTHS)
    return counts


class DriftWindow:
    """Counts a version's last answers by label and by tenth of score, and measures them against its ``profile``.

    The label is the best one, also for an answer that abstains. The window keeps the last ``answers`` answers (or as
    many as :func:`enough` asks for) of the last ``seconds`` seconds, in about ten panes. The oldest pane is dropped
    whole.
    """

    def __init__(self, profile: Profile, *, answers: int = 10_000, seconds: float = 3600.0) -> None:
        self._profile = profile
        self._enough = enough(max(len(profile.labels), TENTHS))
        self._wanted = max(answers, self._enough)
        self._seconds = seconds
        self._panes: deque[_Pane] = deque()

    def add(self, labels: Mapping[int, int], tenths: Mapping[int, int], now_s: float) -> None:
        """Add answers given at ``now_s`` (a monotonic time): their counts by label index, and by tenth of the score.

        Both count the same answers. Raises IndexError for a label that the profile does not have.
        """
        pane = self._panes[-1] if self._panes else None
        if pane is None or pane.answers * _PANES >= self._wanted or (now_s - pane.begun_s) * _PANES >= self._seconds:
            pane = _Pane(now_s, [0] * len(self._profile.labels), [0] * TENTHS)
            self._panes.append(pane)
        for label, count in labels.items():
            pane.labels[label] += count
            pane.answers += count
        for place, count in tenths.items():
            pane.tenths[place] += count
        self._forget(now_s)

    def measure(self, now_s: float) -> Drift | None:
        """The drift at ``now_s``, None while the window holds too few answers to tell it from chance."""
        self._forget(now_s)
        count = self.count()
        if count < self._enough:
            return None
        labels = [sum(column) / count for column in zip(*(pane.labels for pane in self._panes), strict=True)]
        tenths = [sum(column) / count for column in zip(*(pane.tenths for pane in self._panes), strict=True)]
        return Drift(
            psi(self._profile.labels, labels, count), psi(self._profile.confidence, tenths, count), answers=count
        )

    def _forget(self, now_s: float) -> None:
        panes = self._panes
        while panes and now_s - panes[0].begun_s >= self._seconds:
            panes.popleft()
        while panes and self.count() - panes[0].answers >= self._wanted:
            panes.popleft()

    def count(self) -> int:
        """How many answers the window holds."""
        return sum(pane.answers for pane in self._panes)


class VersionDrift:
    """Measures the answers of one version at a time; answers of others don't count. The window is a
    :class:`DriftWindow` of ``answers`` and ``seconds``.
    """

    def __init__(self, *, answers: int = 10_000, seconds: float = 3600.0) -> None:
        self._answers = answers
        self._seconds = seconds
        self._places: dict[str, int] = {}
        self._window: DriftWindow | None = None
        self.version: ModelVersion | None = None

    @property
    def measurable(self) -> bool:
        """Whether the version has a profile that its answers can be measured against."""
        return self._window is not None

    @property
    def needed(self) -> int:
        """How many answers a measure takes."""
        return enough(max(len(self._places), TENTHS))

    def follow(self, version: ModelVersion | None) -> None:
        """Measure ``version`` from now on; a version without a profile has no drift.

        Raises ValueError for a profile that does not fit the version, which has no drift then.
        """
        if version == self.version:
            return
        self.version, self._window = version, None
        if version is None or version.profile is None:
            return
        check_profile(version.profile, len(version.labels))
        self._places = {label: place for place, label in enumerate(version.labels)}
        self._window = DriftWindow(version.profile, answers=self._answers, seconds=self._seconds)

    def add(self, results: Iterable[ClassifyResult], now_s: float) -> None:
        """Add answers read at ``now_s``, a monotonic time."""
        if self._window is None or self.version is None:
            return
        given = [
            (self._places[label], answer.score or 0.0)
            for answer in results
            if answer.version == self.version.version and (label := _best(answer)) in self._places
        ]
        labels = Counter(label for label, _ in given)
        self._window.add(labels, tenths([score for _, score in given]), now_s)

    def measure(self, now_s: float) -> Drift | None:
        """The drift at ``now_s``, None while too few answers were seen."""
        return None if self._window is None else self._window.measure(now_s)

    def seen(self) -> int:
        """How many answers are in the window."""
        return 0 if self._window is None else self._window.count()


def _best(answer: ClassifyResult) -> str | None:
    """The label of an answer, of one that abstains the first of its ranking, and none of a failed one."""
    if answer.label is not None:
        return answer.label
    return answer.ranking[0].label if answer.ranking else None


class _Pane(msgspec.Struct):
    """The counts of some consecutive answers."""

    begun_s: float
    labels: list[int]
    tenths: list[int]
    answers: int = 0
