"""A compression's curve for the terminal."""

from __future__ import annotations

from rich.table import Table

from headrace.training.compress.curve import Curve, Point, Tuning

_TUNING = {Tuning.NONE: "", Tuning.WIDE: "wide part", Tuning.BOTH: "both parts"}


def curve_table(curve: Curve) -> Table:
    """Every network that was scored, from the largest on; the one taken is marked."""
    title = f"Compression, macro-F1 on the validation rows (fp32: {curve.original.macro_f1:.2%})"
    table = Table(title=title, title_justify="left")
    for name in ("", "kB", "macro-F1", "cross entropy", "us a text", "words", "bigrams", "dim.", "filters", "bits"):
        table.add_column(name, justify="right")
    table.add_column("tuned")
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
