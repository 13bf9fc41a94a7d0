"""How well a classifier answered: accuracy, macro-F1, each class, and which classes it takes for which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec


class ClassReport(msgspec.Struct, frozen=True, kw_only=True):
    """One class: ``support`` rows, ``right`` of them answered so. A quotient of nothing is 0."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int
    right: int


class Confusion(msgspec.Struct, frozen=True, kw_only=True):
    """``count`` rows of class ``label`` were answered with ``predicted``."""

    label: str
    predicted: str
    count: int


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Shares are in [0, 1]. ``macro_f1``: mean of F1 over the classes that occur among labels or answers.

    ``confusions``: the most frequent mistakes, most frequent first, at most as many as asked for.
    """

    rows: int
    accuracy: float
    macro_f1: float
    classes: tuple[ClassReport, ...]
    confusions: tuple[Confusion, ...]


def compare(truth: Sequence[str], answers: Sequence[str], *, most_confusions: int = 100) -> Report:
    """Score ``answers`` against ``truth``, two labels a row. Raises ValueError for no rows or unequal lengths."""
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
    return Report(
        rows=len(truth),
        accuracy=sum(pairs[label, label] for label in support) / len(truth),
        macro_f1=sum(one.f1 for one in classes) / len(classes),
        classes=classes,
        confusions=tuple(
            Confusion(label=label, predicted=answer, count=count) for label, answer, count in mistakes[:most_confusions]
        ),
    )


def agreement(answers: Sequence[str], others: Sequence[str]) -> float:
    """The share of rows with equal answers, 0 without rows. Raises ValueError for unequal lengths."""
    if not answers and not others:
        return 0.0
    return sum(one == other for one, other in zip(answers, others, strict=True)) / len(answers)


def _class_report(label: str, right: int, support: int, predicted: int) -> ClassReport:
    return ClassReport(
        label=label,
        precision=right / predicted if predicted else 0.0,
        recall=right / support if support else 0.0,
        f1=2 * right / (support + predicted),
        support=support,
        right=right,
    )
