"""A compression's curve for the terminal."""

from __future__ import annotations

from rich import box
from rich.table import Table

from headrace.training.compress.curve import Curve, Point, Tuning

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
