"""The curve of a compression: size, accuracy and speed of every network that was scored; its table and its picture."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.table import Table

from headrace.learning.distributed.collectives import Exchange
from headrace.model.artifact import About, assemble
from headrace.model.backends.interface import Backend, open_backend
from headrace.model.network import FIRST_WORD_ROW, Network, float_logits
from headrace.model.quantizing import Bits, quantize

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """``points``: how far validation macro-F1 may fall below that of the fp32 network, in points of a hundred.

    ``coarse``: fewer sizes are tried, further apart, and the convolution is not trained on, so the search ends sooner
    with a network that may be larger.
    """

    points: Annotated[float, msgspec.Meta(ge=0)] = 0.5
    coarse: bool = False


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept: ``dimensions`` of a word, ``filters`` a width, shares in [0, 1] of words and bigrams, and the
    ``bits`` of a stored value.
    """

    dimensions: int
    filters: int
    words: float
    bigrams: float
    bits: Bits


_KEY = 4


def artifact_bytes(network: Network, plan: Plan) -> int:
    """The bytes of the arrays that :mod:`headrace.model.artifact` stores of what ``plan`` keeps."""
    labels, rows = len(network.labels), _rows(network, plan)
    features, bigrams = plan.filters * len(network.widths), round(plan.bigrams * len(network.bigram_hashes))
    word, head = _row(plan.dimensions, plan.bits.convolution), _row(features, plan.bits.convolution)
    wide = _row(labels, plan.bits.wide)
    # Each row has a step, each word (padding and unknown are none) and bigram a key, each label a bias.
    of_words = rows * (word + wide + 2) + _KEY * (rows - FIRST_WORD_ROW)
    of_bigrams = bigrams * (wide + 1 + _KEY)
    # Each filter has two scales and a bias.
    of_filters = plan.filters * sum(network.widths) * word + features * 3 * 4
    return of_words + of_bigrams + of_filters + labels * (head + 1 + 8)


def table_bytes(network: Network, plan: Plan) -> int:
    """The bytes of the folded tables, of which each word of a text reads a row: what answering costs goes with it."""
    return _rows(network, plan) * sum(network.widths) * plan.filters


def _row(values: int, bits: int) -> int:
    return -(-values * bits // 8)


def _rows(network: Network, plan: Plan) -> int:
    return round(plan.words * len(network.word_hashes)) + FIRST_WORD_ROW


_TIMED_TEXTS = 1024
_ROUNDS = 3
_TEXTS_AT_ONCE = 256

T = TypeVar("T")


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """On the validation rows of all ranks: ``macro_f1`` in [0, 1] and mean ``cross_entropy`` in nats.

    ``size`` in bytes; ``latency_us``: microseconds a text on one thread of the cpu backend, as rank 0 saw it, None
    where nothing was timed.
    """

    macro_f1: float
    cross_entropy: float
    size: int
    latency_us: float | None = None


def score_quantized(
    network: Network,
    bits: Bits,
    texts: Sequence[str],
    targets: NDArray[np.int64],
    exchange: Exchange,
    clock: Callable[[], float],
) -> Score:
    """Quantize ``network`` to ``bits`` and answer this rank's ``texts``; ``targets`` int64[texts] are their labels'
    indexes. ``clock`` gives seconds.
    """
    artifact = assemble(quantize(network, bits), About())
    backend = open_backend("cpu", artifact)
    backend.warm()
    encoded = [text.encode("utf-8", "replace") for text in texts]
    return _score(
        (backend.logits(piece) * artifact.network.unit for piece in _pieces(encoded)),
        targets,
        len(network.labels),
        exchange,
        size=artifact.size,
        latency_us=exchange.gather(_latency_us(backend, encoded[:_TIMED_TEXTS], clock), float)[0],
    )


def _latency_us(backend: Backend, texts: Sequence[bytes], clock: Callable[[], float]) -> float:
    """Of the best of some rounds, which other processes disturb least."""
    rounds = []
    for _ in range(_ROUNDS):
        begun = clock()
        backend.logits(texts)
        rounds.append(clock() - begun)
    return 1e6 * min(rounds) / max(len(texts), 1)


def score_float(network: Network, texts: Sequence[str], targets: NDArray[np.int64], exchange: Exchange) -> Score:
    """The network as it was trained."""
    logits = (float_logits(network, piece).astype(np.float64) for piece in _pieces(texts))
    return _score(logits, targets, len(network.labels), exchange, size=float_bytes(network), latency_us=None)


def float_bytes(network: Network) -> int:
    """The bytes of all arrays of ``network``: its size without any compression."""
    arrays = [value for value in vars(network).values() if isinstance(value, np.ndarray)]
    return sum(array.nbytes for array in (*arrays, *network.filters))


def _pieces(texts: Sequence[T]) -> Iterable[Sequence[T]]:
    return (texts[first : first + _TEXTS_AT_ONCE] for first in range(0, len(texts), _TEXTS_AT_ONCE))


def _score(
    logits: Iterable[NDArray[np.floating[Any]]],
    targets: NDArray[np.int64],
    labels: int,
    exchange: Exchange,
    *,
    size: int,
    latency_us: float | None,
) -> Score:
    """``logits`` float64[texts, C] come in pieces, which together are of all texts that ``targets`` are of."""
    losses, answers, first = np.empty(len(targets)), np.empty(len(targets), np.int64), 0
    for piece in logits:
        texts = slice(first, first + len(piece))
        shifted = piece - piece.max(axis=1, keepdims=True)
        own = np.take_along_axis(shifted, targets[texts, None], axis=1)[:, 0]
        losses[texts] = np.log(np.exp(shifted).sum(axis=1)) - own
        answers[texts] = piece.argmax(axis=1)
        first += len(piece)
    loss, rows = exchange.sum(np.array([losses.sum(), float(len(targets))]))
    right = targets[answers == targets]
    counts = exchange.sum(np.stack([np.bincount(of, minlength=labels) for of in (targets, answers, right)]))
    return Score(macro_f1=_macro_f1(*counts), cross_entropy=float(loss / rows), size=size, latency_us=latency_us)


def _macro_f1(support: NDArray[np.int64], answered: NDArray[np.int64], right: NDArray[np.int64]) -> float:
    """The mean of F1 over the classes that occur among labels, from each class's counts."""
    occurs = support > 0
    return float((2 * right[occurs] / (support + answered)[occurs]).mean())


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
    "loss: cross entropy. words, pairs: the share that is kept, of single words and of two in a row. dim: the numbers"
    " that stand for a word. filters: the patterns of words that are looked for. bits: of a weight, in these patterns"
    " and in the linear part beside them. tuned: what was trained again after the cut, the linear part or all. ->: the"
    " one taken. Grey lines lose more than the budget allows."
)


def curve_title(curve: Curve) -> str:
    """What the table shows."""
    return f"Sizes that were tried, by macro-F1 on the validation rows (fp32: {curve.original.macro_f1:.2%})"


def curve_table(curve: Curve) -> Table:
    """Every network that was scored, from the largest on, within 80 columns; the one taken is marked."""
    table = Table(
        caption=f"\n{_EXPLAINED}",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
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


_STYLES = {
    Tuning.NONE: ("o", "#7f7f7f", "pruned"),
    Tuning.WIDE: ("s", "#1f77b4", "and wide part refitted"),
    Tuning.BOTH: ("^", "#2ca02c", "and convolution tuned"),
}


def draw(curve: Curve, title: str) -> bytes:
    """The curve as SVG: macro-F1 against size, and against the time of a text; a line where the budget ends.

    Equal curves give equal bytes.
    """
    # Here, because a trainer reads curves and draws none.
    import matplotlib as mpl  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(10, 4.5), layout="constrained")
    figure.suptitle(title)
    left, right = figure.subplots(1, 2, sharey=True)
    _draw_points(left, curve, lambda point: point.score.size / 1000)
    left.set(xscale="log", xlabel="artifact, kB", ylabel="macro-F1 on the validation rows, %")
    left.plot(curve.original.size / 1000, 100 * curve.original.macro_f1, "k*", markersize=11, label="fp32")
    _draw_points(right, curve, lambda point: point.score.latency_us or 0.0)
    right.set(xlabel="a text on one thread, µs")
    for axes in (left, right):
        least = 100 * curve.original.macro_f1 - curve.budget.points
        axes.axhline(least, color="k", linewidth=0.8, linestyle=":", label="budget")
        axes.grid(alpha=0.3)
    left.legend()
    written = BytesIO()
    with mpl.rc_context({"svg.hashsalt": "headrace", "svg.fonttype": "none"}):
        figure.savefig(written, format="svg", metadata={"Date": None})
    return written.getvalue()


def _draw_points(axes: Axes, curve: Curve, across: Callable[[Point], float]) -> None:
    for tuning, (marker, color, label) in _STYLES.items():
        chosen = [point for point in curve.points if point.tuning is tuning]
        axes.plot(
            [across(point) for point in chosen],
            [100 * point.score.macro_f1 for point in chosen],
            marker,
            color=color,
            label=label,
        )
    axes.plot(
        across(curve.chosen),
        100 * curve.chosen.score.macro_f1,
        "o",
        markersize=14,
        markerfacecolor="none",
        color="#d62728",
        label="taken",
    )
