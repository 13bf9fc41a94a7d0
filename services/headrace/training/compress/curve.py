"""The curve of a compression: size, speed and accuracy of every network that was scored."""

from __future__ import annotations

import enum

import msgspec

from headrace.model.network import Network
from headrace.training.compress.measure import Score, float_bytes
from headrace.training.compress.plan import Budget, Plan


class Tuning(enum.Enum):
    """What followed pruning: nothing, a new fit of the wide part, or that and some epochs of the convolution."""

    NONE = "none"
    WIDE = "wide"
    BOTH = "both"


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """A network on the curve: what ``plan`` keeps, how it was tuned, its score, and whether the budget allows it."""

    plan: Plan
    tuning: Tuning
    score: Score
    within: bool


class Curve(msgspec.Struct, frozen=True, kw_only=True):
    """``original``: the score of the network as it was trained; ``chosen``: the point taken, one of ``points``, the
    smallest that ``budget`` allows.
    """

    budget: Budget
    original: Score
    chosen: Point
    points: tuple[Point, ...]


def figures(curve: Curve, original: Network, network: Network, size: int) -> dict[str, float]:
    """What a version's record says of its compression: from ``original`` to ``network``, an artifact of ``size`` bytes.

    The budget in points, bytes, what was kept, bits of a value, and macro-F1 in [0, 1] on the validation rows, where
    the plan was chosen.
    """
    before = float_bytes(original)
    return {
        "budget_points": curve.budget.points,
        "bytes_fp32": float(before),
        "bytes": float(size),
        "ratio": before / size,
        "kept_words": float(len(network.word_hashes)),
        "kept_bigrams": float(len(network.bigram_hashes)),
        "kept_filters": float(len(network.filter_bias)),
        "dimensions": float(network.words.shape[1]),
        "bits_convolution": float(curve.chosen.plan.bits.convolution),
        "bits_wide": float(curve.chosen.plan.bits.wide),
        "macro_f1_fp32": curve.original.macro_f1,
        "macro_f1": curve.chosen.score.macro_f1,
    }
