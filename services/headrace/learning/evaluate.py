"""How well a classifier answers: its labels and scores, its speed, its calibration, and a report with intervals.

It loads no torch, so that a version can be evaluated where only workers run.

Every figure comes with its 95 % interval, because a figure measured on few rows says little. A figure that can't be
measured is None, neither 0 nor 1.

Macro-F1 is the mean of F1 over the classes that occur among the true labels. Its interval is the percentile interval
of the bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13). Two classifiers are
compared on the same test rows, as by Koehn, Statistical Significance Tests for Machine Translation Evaluation, EMNLP
2004: a row is drawn with its true label and both answers, so rows that are hard for both don't blur the difference.
Drawing n rows with replacement is drawing one multinomial over the distinct combinations of labels, which has the same
distribution.

Few rows may all be right, or equal, by chance; then every draw is the same and the plain interval is a point. So two
rows are added to those that are drawn from, as in the intervals of Agresti and Coull (The American Statistician 52,
1998): one for each way in which the next row could differ, spread over the classes as the rows are. Where all n rows
are right, the interval then reaches down about as far as the exact one of Clopper and Pearson. A class that is not
drawn has no F1 and is left out of that draw.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.core.drift import TENTHS, tenths
from headrace.core.gate import Comparison
from headrace.core.text import label_name
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
    """The label that ``backend`` gives each text, as :func:`~headrace.core.text.label_name` spells it.

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
    own = Examined(
        truth=rows.labels,
        answers=answer_scored(backend, rows.texts),
        float_answers=float_answers(original, rows.texts),
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


def float_answers(original: Network, texts: Sequence[str]) -> tuple[str, ...]:
    """The labels that the fp32 network gives ``texts``."""
    pieces = (texts[first : first + _TEXTS_AT_ONCE] for first in range(0, len(texts), _TEXTS_AT_ONCE))
    return tuple(
        original.labels[place] for piece in pieces for place in np.argmax(float_logits(original, piece), axis=1)
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
        raise ValueError("no scores to evaluate")
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


INTERVAL = (0.025, 0.975)
_CELLS_AT_ONCE = 1 << 20
_RESAMPLES = 1000
_EQUAL = 1e-12


def compare_paired(
    truth: Sequence[str],
    candidate: Sequence[str],
    champion: Sequence[str],
    *,
    resamples: int,
    randomness: np.random.Generator,
) -> Comparison:
    """Compare two classifiers' answers to the same rows; the same generator state gives the same interval.

    Raises ValueError for no rows or unequal lengths.
    """
    if not truth or not len(truth) == len(candidate) == len(champion):
        raise ValueError(f"{len(truth)} labels, {len(candidate)} and {len(champion)} answers can't be compared")
    labels, triples, counts = _cells(truth, candidate, champion)
    ours, theirs = (_f1_of_draws(counts[None, :], triples[0], triples[place], labels)[0] for place in (1, 2))
    # Only the candidate is right on one of the rows added, only the champion on the other.
    right, wrong, weights = _one_more(triples[0], counts, labels)
    added = np.concatenate([np.stack([right, right, wrong]), np.stack([right, wrong, right])], axis=1)
    triples, weighted = np.concatenate([triples, added], axis=1), np.concatenate([counts, weights, weights])
    differences = np.concatenate(
        [
            _f1_of_draws(drawn, triples[0], triples[1], labels) - _f1_of_draws(drawn, triples[0], triples[2], labels)
            for drawn in _draws(weighted, len(truth), resamples, randomness)
        ]
    )
    low, high = _around(float(ours - theirs), differences)
    return Comparison(rows=len(truth), macro_f1=float(ours), rival_macro_f1=float(theirs), low=low, high=high)


def macro_f1_interval(truth: Sequence[str], answers: Sequence[str]) -> tuple[float, float]:
    """The 95 % interval of the macro-F1 of ``answers``; the same rows give the same. Raises ValueError as above."""
    if not truth or len(truth) != len(answers):
        raise ValueError(f"{len(truth)} labels and {len(answers)} answers can't be compared")
    labels, pairs, counts = _cells(truth, answers)
    seen = float(_f1_of_draws(counts[None, :], pairs[0], pairs[1], labels)[0])
    # One of the rows added is answered right, the other wrong.
    right, wrong, weights = _one_more(pairs[0], counts, labels)
    added = np.concatenate([np.stack([right, right]), np.stack([right, wrong])], axis=1)
    pairs, weighted = np.concatenate([pairs, added], axis=1), np.concatenate([counts, weights, weights])
    draws = _draws(weighted, len(truth), _RESAMPLES, np.random.default_rng(0))
    return _around(seen, np.concatenate([_f1_of_draws(drawn, pairs[0], pairs[1], labels) for drawn in draws]))


def by_chance(
    truth: Sequence[str], answers: Sequence[str], *, resamples: int, randomness: np.random.Generator
) -> float:
    """How often answers that ignore the text, but are as often each class, reach a macro-F1 as high: the p-value of a
    permutation test, above 0 and at most 1.

    It is exact for any number of rows (Phipson and Smyth, Permutation P-values Should Never Be Zero, 2010). Raises
    ValueError for no rows or unequal lengths.
    """
    if not truth or len(truth) != len(answers):
        raise ValueError(f"{len(truth)} labels and {len(answers)} answers can't be compared")
    names, codes = np.unique([list(truth), list(answers)], return_inverse=True)
    given, answered = codes.reshape(2, -1)
    # Shuffled labels stay as many of each class, so F1 of a class is its right answers times this.
    worth = 2 / (np.bincount(given, minlength=len(names)) + np.bincount(answered, minlength=len(names)))
    worths = worth[answered]
    seen = worths[given == answered].sum() - _EQUAL
    as_good = sum(worths[randomness.permutation(given) == answered].sum() >= seen for _ in range(resamples))
    return float((1 + as_good) / (1 + resamples))


def _cells(*columns: Sequence[str]) -> tuple[int, NDArray[np.int64], NDArray[np.int64]]:
    """How many labels there are, every distinct combination of them, and how many rows have it.

    One label more than occurs is counted: an answer that is none of the others.
    """
    names, codes = np.unique([list(column) for column in columns], return_inverse=True)
    cells, counts = np.unique(codes.reshape(len(columns), -1), axis=1, return_counts=True)
    return len(names) + 1, cells, counts


def _one_more(
    truth: NDArray[np.int64], counts: NDArray[np.int64], labels: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """One row spread over the classes as the rows are: each class, one that it is mistaken for, its share of a row."""
    support = np.bincount(truth, counts, labels)
    classes = np.flatnonzero(support)
    mistaken = np.roll(classes, -1) if len(classes) > 1 else np.array([labels - 1])
    return classes, mistaken, support[classes] / support.sum()


def _draws(
    weights: NDArray[np.float64], rows: int, resamples: int, randomness: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """``int64[d, cells]`` at a time, ``resamples`` in all, so that memory stays bounded."""
    at_once = max(1, _CELLS_AT_ONCE // len(weights))
    for first in range(0, resamples, at_once):
        yield randomness.multinomial(rows, weights / weights.sum(), size=min(at_once, resamples - first))


def _around(seen: float, drawn: NDArray[np.float64]) -> tuple[float, float]:
    """The interval of what was drawn, which holds what was seen."""
    low, high = np.quantile(drawn, INTERVAL)
    return min(float(low), seen), max(float(high), seen)


def _f1_of_draws(
    counts: NDArray[np.int64], truth: NDArray[np.int64], answers: NDArray[np.int64], labels: int
) -> NDArray[np.float64]:
    """``float64[d]`` of ``counts`` int64[d, t]: how often each cell occurs, with its true label and its answer."""
    support, predicted = _by_label(counts, truth, labels), _by_label(counts, answers, labels)
    right = _by_label(counts[:, truth == answers], truth[truth == answers], labels)
    present = support > 0
    f1 = np.divide(2 * right, support + predicted, where=present, out=np.zeros(support.shape))
    means: NDArray[np.float64] = f1.sum(axis=1) / present.sum(axis=1)
    return means


def _by_label(counts: NDArray[np.int64], label: NDArray[np.int64], labels: int) -> NDArray[np.float64]:
    """``float64[d, labels]``: the counts of the cells with each label. Sums of whole numbers, so exact."""
    draws = len(counts)
    places = np.arange(draws)[:, None] * labels + label
    sums = np.bincount(places.ravel(), counts.ravel(), draws * labels).astype(np.float64)
    return sums.reshape(draws, labels)


WIDE = 0.2
"""An interval of the accuracy that is wider tells too little to go by."""
_Z = 1.959964
"""Standard deviations on each side that hold 95 % of a normal distribution."""
Interval = tuple[float, float]


class ClassReport(msgspec.Struct, frozen=True, kw_only=True):
    """One class: ``support`` rows, ``right`` of them answered so.

    None is what can't be measured: the precision of a class that was never answered, recall and F1 of one without rows.
    """

    label: str
    precision: float | None
    recall: float | None
    f1: float | None
    support: int
    right: int


class Confusion(msgspec.Struct, frozen=True, kw_only=True):
    """``count`` rows of class ``label`` were answered with ``predicted``."""

    label: str
    predicted: str
    count: int


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Shares are in [0, 1]. ``macro_f1``: mean of F1 over the classes that have rows. An interval is of 95 %.

    ``classes`` are those that occur among labels or answers; ``confusions``: the most frequent mistakes, most frequent
    first, at most as many as asked for. ``untested``: classes that were learnt and have no row here.
    """

    rows: int
    accuracy: float
    macro_f1: float
    classes: tuple[ClassReport, ...]
    confusions: tuple[Confusion, ...]
    accuracy_interval: Interval = (0.0, 1.0)
    macro_f1_interval: Interval = (0.0, 1.0)
    untested: tuple[str, ...] = ()

    @property
    def tells_little(self) -> bool:
        """Whether the rows are so few that the accuracy could be nearly anything."""
        low, high = self.accuracy_interval
        return high - low > WIDE


def compare(
    truth: Sequence[str], answers: Sequence[str], *, learnt: Collection[str] = (), most_confusions: int = 100
) -> Report:
    """Score ``answers`` of who has ``learnt`` these classes against ``truth``, two labels a row.

    Raises ValueError for no rows or unequal lengths.
    """
    if not truth or len(truth) != len(answers):
        raise ValueError(f"{len(truth)} labels and {len(answers)} answers can't be compared")
    pairs = Counter(zip(truth, answers, strict=True))
    support, predicted = Counter(truth), Counter(answers)
    classes = tuple(
        _class_report(label, pairs[label, label], support[label], predicted[label])
        for label in sorted(support.keys() | predicted.keys())
    )
    mistakes = [(label, answer, count) for (label, answer), count in pairs.items() if label != answer]
    mistakes.sort(key=lambda mistake: (-mistake[2], mistake[0], mistake[1]))
    right = sum(pairs[label, label] for label in support)
    measured = [one.f1 for one in classes if one.f1 is not None]
    return Report(
        rows=len(truth),
        accuracy=right / len(truth),
        accuracy_interval=share_interval(right, len(truth)),
        macro_f1=sum(measured) / len(measured),
        macro_f1_interval=macro_f1_interval(truth, answers),
        untested=tuple(sorted(set(learnt) - support.keys())),
        classes=classes,
        confusions=tuple(
            Confusion(label=label, predicted=answer, count=count) for label, answer, count in mistakes[:most_confusions]
        ),
    )


def share_interval(count: int, rows: int) -> Interval:
    """The 95 % interval of a share of which ``count`` of ``rows`` were seen: Wilson's (JASA 22, 1927), which is not one
    point where all or none were.
    """
    middle = (count + _Z**2 / 2) / (rows + _Z**2)
    half = _Z / (rows + _Z**2) * (count * (rows - count) / rows + _Z**2 / 4) ** 0.5
    # Rounding must not lead out of [0, 1], nor past what was seen.
    return max(0.0, min(middle - half, count / rows)), min(1.0, max(middle + half, count / rows))


def agreement(answers: Sequence[str], others: Sequence[str]) -> float:
    """The share of rows with equal answers. Raises ValueError for no rows or unequal lengths."""
    if not answers:
        raise ValueError("no answers to compare")
    return sum(one == other for one, other in zip(answers, others, strict=True)) / len(answers)


def _class_report(label: str, right: int, support: int, predicted: int) -> ClassReport:
    return ClassReport(
        label=label,
        precision=right / predicted if predicted else None,
        recall=right / support if support else None,
        f1=2 * right / (support + predicted) if support else None,
        support=support,
        right=right,
    )
