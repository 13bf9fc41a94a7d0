"""How well a classifier answered: accuracy, macro-F1, each class, and which classes it takes for which.

A figure of a few rows says little, so each has the interval in which that of all texts may lie. What can't be measured
has no figure, which is neither 0 nor 1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

import msgspec

from headrace.learning.bootstrap import macro_f1_interval

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
