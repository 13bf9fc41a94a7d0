"""The curve of a compression: size, speed and accuracy of every network that was scored, and its table."""

from __future__ import annotations

import enum

import msgspec
from rich import box
from rich.table import Table

from headrace.learning.compress.score import Budget, Plan, Score, float_bytes
from headrace.model.network import Network


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


_TUNING = {Tuning.NONE: "", Tuning.WIDE: "linear", Tuning.BOTH: "all"}

_EXPLAINED = (
    "loss: cross entropy. words, pairs: the share that is kept, of single words and of two in a row. dim, filters: of"
    " the convolution. bits: a weight, in the convolution and in the linear part beside it. tuned: what was trained"
    " again after the cut, the linear part or all. ->: the one taken. Dim lines cost more than the budget."
)


def curve_table(curve: Curve) -> Table:
    """Every network that was scored, from the largest on, within 80 columns; the one taken is marked."""
    table = Table(
        title=f"Compression, macro-F1 on the validation rows (fp32: {curve.original.macro_f1:.2%})",
        title_justify="left",
        caption=_EXPLAINED,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    for name in ("", "kB", "macro-F1", "loss", "us/text", "words", "pairs", "dim", "filters", "bits"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("tuned", no_wrap=True)
    for point in sorted(curve.points, key=lambda point: -point.score.size):
        table.add_row(*_cells(point, taken=point == curve.chosen), style=None if point.within else "dim")
    return table


def _cells(point: Point, *, taken: bool) -> tuple[str, ...]:
    score, plan = point.score, point.plan
    latency = "" if score.latency_us is None else f"{score.latency_us:.1f}"
    kept = (f"{plan.words:.0%}", f"{plan.bigrams:.0%}", f"{plan.dimensions}", f"{plan.filters}")
    bits = f"{plan.bits.convolution}, {plan.bits.wide}"
    marks = ("->" if taken else "", f"{score.size / 1000:,.0f}")
    quality = (f"{score.macro_f1:.2%}", f"{score.cross_entropy:.4f}", latency)
    return (*marks, *quality, *kept, bits, _TUNING[point.tuning])
