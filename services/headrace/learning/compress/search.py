"""Search for the smallest artifact inside an accuracy budget.

First each way of becoming smaller is tried alone, at some levels, to see how much cross entropy it costs. These costs
give one path from the whole network to a very small one (:func:`lay_path`). The networks along the path are scored as
they are. By bisection some are trained on and scored again; the last of these that the budget allows is taken.

The search runs on the validation rows. What it chose is then done to the network trained on all rows (:func:`follow`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import log

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.learning.compress.curve import (
    Budget,
    Curve,
    Plan,
    Point,
    Score,
    Tuning,
    artifact_bytes,
    score_float,
    score_quantized,
    table_bytes,
)
from headrace.learning.compress.prune import Counts, Tuner, apply_plan, count
from headrace.learning.data.features import Material
from headrace.learning.distributed.collectives import Exchange
from headrace.learning.fit.blend import BlendWeights
from headrace.learning.fit.hyperparameters import Recipe
from headrace.model.network import Network
from headrace.model.quantizing import Bits

# The fractions of words, bigrams, dimensions and filters that are tried. Less than the last is never kept: on few
# validation rows it can look as if nothing was lost.
_FRACTIONS = (1.0, 0.7, 0.5, 0.35, 0.25, 0.18, 0.125)
_DIMENSIONS = (1.0, 0.5, 0.375, 0.25, 0.1875, 0.125)
# The kernel reads filters 32 at a time, so that of 96 the thirds are what makes it faster.
_FILTERS = (1.0, 2 / 3, 1 / 2, 1 / 3, 1 / 4, 1 / 6, 1 / 8)
# Bytes of the artifact are what is asked for; those of the tables, which answering reads, count this much as well.
_TABLES = 0.3
# Of two steps that seem to cost nothing the one that saves more comes first.
_LEAST_COST = 1e-4

Value = float | Bits
Axes = dict[str, list[Value]]


def whole_plan(network: Network) -> Plan:
    """The plan that keeps everything, in 8 bits."""
    dimensions, filters = network.words.shape[1], len(network.filters[0])
    return Plan(dimensions=dimensions, filters=filters, words=1.0, bigrams=1.0, bits=Bits())


def axes_of(network: Network, *, coarse: bool = False) -> Axes:
    """For each field of a plan the values tried, from that of the whole network on, falling.

    ``coarse``: the whole and every second value, the last among them.
    """
    whole = whole_plan(network)
    axes: Axes = {
        "words": list(_FRACTIONS),
        "bigrams": list(_FRACTIONS),
        "dimensions": _counts(whole.dimensions, _DIMENSIONS),
        "filters": _counts(whole.filters, _FILTERS),
        "bits": [Bits(), Bits(wide=4), Bits(4, 4)],
    }
    if not coarse:
        return axes
    # Counted from the last, so that the smallest network that can be reached is the same.
    return {field: [*values[:1], *values[:0:-2][::-1]] for field, values in axes.items()}


def lay_path(network: Network, axes: Axes, costs: Mapping[str, Sequence[float]]) -> Iterator[Plan]:
    """The plans from the whole network on, it left out. Each takes one field to its next value.

    ``costs``: for each field and value what it costs alone. Costs are taken to add up and never to fall. The step taken
    is the one that saves most, in logarithms of bytes, for its cost.
    """
    at = dict.fromkeys(axes, 0)
    plan = whole_plan(network)
    while steps := [field for field in axes if at[field] + 1 < len(axes[field])]:

        def worth(field: str, plan: Plan = plan) -> float:
            place = at[field]
            cost = max(costs[field][: place + 2]) - max(costs[field][: place + 1])
            return _saved(network, plan, _with(plan, field, axes[field][place + 1])) / max(cost, _LEAST_COST)

        best = max(steps, key=worth)
        at[best] += 1
        plan = _with(plan, best, axes[best][at[best]])
        yield plan


def alone(network: Network, field: str, value: Value) -> Plan:
    """The whole network's plan but for ``field``."""
    return _with(whole_plan(network), field, value)


def _saved(network: Network, before: Plan, after: Plan) -> float:
    bytes_ = log(artifact_bytes(network, before) / artifact_bytes(network, after))
    return bytes_ + _TABLES * log(table_bytes(network, before) / table_bytes(network, after))


def _with(plan: Plan, field: str, value: Value) -> Plan:
    return msgspec.structs.replace(plan, **{field: value})


def _counts(whole: int, fractions: Sequence[float]) -> list[Value]:
    """Whole numbers at these fractions of ``whole``, each once."""
    return list(dict.fromkeys(max(1, round(fraction * whole)) for fraction in fractions))


# A network of the path is scored where it is at most this share of the last one scored.
_SHRINK = 0.85
_COARSE_SHRINK = 0.6
# The path is followed until a network that is not trained on costs so many times what the budget allows.
_BEYOND = 6.0
# What part of the rise in cross entropy that goes with the budget is used up. The network taken is the smallest that
# passes on the validation rows, so it passes on other rows by less.
_USED = 1 / 3
# The errors are taken to be at least this: of a handful, the share by which a budget lets them grow says nothing.
_LEAST_ERRORS = 1 / 30


class Compressed(msgspec.Struct, frozen=True, kw_only=True):
    """The ``network`` taken, which is to be quantized to the bits of ``curve.chosen.plan``, and how it was found."""

    network: Network
    curve: Curve


class Tools(msgspec.Struct, frozen=True, kw_only=True):
    """What the search does to a network: ``score`` quantizes to so many bits and scores, ``refit_wide`` and
    ``tune_convolution`` train one part of a pruned one on. On several ranks all have to come to the same.
    """

    score: Callable[[Network, Bits], Score]
    refit_wide: Callable[[Network], Network]
    tune_convolution: Callable[[Network], Network]


def search(
    network: Network,
    counts: Counts,
    original: Score,
    budget: Budget,
    tools: Tools,
    on_point: Callable[[Point], None],
) -> Compressed:
    """The smallest network that ``budget`` allows; where it allows none that is pruned, the whole one in 8 bits.

    ``original``: the score of ``network`` before it is quantized; ``counts`` are of ``network``. ``on_point`` is told
    of each point of the curve.
    """
    points: list[Point] = []

    def add(candidate: Network, plan: Plan, tuning: Tuning) -> Point:
        score = tools.score(candidate, plan.bits)
        points.append(Point(plan=plan, tuning=tuning, score=score, within=allows(budget, original, score)))
        on_point(points[-1])
        return points[-1]

    def trained(plan: Plan) -> tuple[Network, Point]:
        refitted = tools.refit_wide(apply_plan(network, plan, counts))
        if budget.coarse:
            return refitted, add(refitted, plan, Tuning.WIDE)
        # Both, because the convolution of few rows can get worse by more training.
        tuned = tools.tune_convolution(refitted)
        found = [(refitted, add(refitted, plan, Tuning.WIDE)), (tuned, add(tuned, plan, Tuning.BOTH))]
        return min(found, key=lambda one: (not one[1].within, one[1].score.cross_entropy))

    chosen, best = add(network, whole_plan(network), Tuning.NONE), network
    plans: list[Plan] = []
    for plan in _thinned(network, _path(network, counts, chosen.score, tools, budget), budget):
        plans.append(plan)
        point = add(apply_plan(network, plan, counts), plan, Tuning.NONE)
        if _rise(original, point.score) > _BEYOND * allowed_rise(budget, original):
            break
    first, last = 0, len(plans)
    while first < last:
        middle = (first + last) // 2
        candidate, point = trained(plans[middle])
        if point.within:
            chosen, best, first = point, candidate, middle + 1
        else:
            last = middle
    return Compressed(network=best, curve=Curve(budget=budget, original=original, chosen=chosen, points=tuple(points)))


def follow(chosen: Point, network: Network, counts: Counts, tools: Tools) -> Network:
    """``network``, whose ``counts`` these are, pruned and tuned as the one of the point ``chosen`` was."""
    if chosen.tuning is Tuning.NONE:
        return network
    pruned = tools.refit_wide(apply_plan(network, chosen.plan, counts))
    return tools.tune_convolution(pruned) if chosen.tuning is Tuning.BOTH else pruned


def allows(budget: Budget, original: Score, score: Score) -> bool:
    """Whether macro-F1 fell by no more than the budget, and cross entropy did not rise by more than goes with it.

    Macro-F1 of some hundred rows jumps by more than a usual budget when a few answers change, and the best of many
    candidates is also the luckiest. Cross entropy hears of every row, so it tells a network that was lucky.
    """
    fell = original.macro_f1 - score.macro_f1
    return fell <= budget.points / 100 and _rise(original, score) <= allowed_rise(budget, original)


def allowed_rise(budget: Budget, original: Score) -> float:
    """The share by which cross entropy may rise: a part of that by which the budget lets errors, 1 - macro-F1, grow."""
    return _USED * budget.points / 100 / max(1 - original.macro_f1, _LEAST_ERRORS)


def _rise(original: Score, score: Score) -> float:
    # A cross entropy of 0 is that of a network which knows every row; then any rise is too much.
    return score.cross_entropy / max(original.cross_entropy, 1e-12) - 1


def _path(network: Network, counts: Counts, whole: Score, tools: Tools, budget: Budget) -> Sequence[Plan]:
    axes = axes_of(network, coarse=budget.coarse)

    def cost(field: str, value: Value) -> float:
        plan = alone(network, field, value)
        return _rise(whole, tools.score(apply_plan(network, plan, counts), plan.bits))

    costs = {field: [0.0, *(cost(field, value) for value in values[1:])] for field, values in axes.items()}
    return list(lay_path(network, axes, costs))


def _thinned(network: Network, path: Sequence[Plan], budget: Budget) -> Sequence[Plan]:
    """Of ``path`` the plans that are each smaller than the one before by a good part, and the last."""
    kept = []
    size = float(artifact_bytes(network, whole_plan(network)))
    shrink = _COARSE_SHRINK if budget.coarse else _SHRINK
    for plan in path:
        if artifact_bytes(network, plan) <= shrink * size or plan is path[-1]:
            kept.append(plan)
            size = artifact_bytes(network, plan)
    return kept


class Compressor:
    """Compression of networks that were assembled with ``weights`` and trained by ``recipe``, on all ranks alike.

    ``texts`` and ``targets`` int64[texts]: this rank's validation rows and the indexes of their labels. ``clock`` gives
    seconds.
    """

    def __init__(
        self,
        texts: Sequence[str],
        targets: NDArray[np.int64],
        weights: BlendWeights,
        recipe: Recipe,
        exchange: Exchange,
        clock: Callable[[], float],
    ) -> None:
        self._texts, self._targets = texts, targets
        self._weights, self._recipe, self._exchange, self._clock = weights, recipe, exchange, clock

    def search(
        self, network: Network, material: Material, budget: Budget, on_point: Callable[[Point], None]
    ) -> Compressed:
        """The smallest form of ``network``, which was trained on ``material``, that ``budget`` allows."""
        original = score_float(network, self._texts, self._targets, self._exchange)
        counts = count(network, material.texts, self._exchange)
        return search(network, counts, original, budget, self._tools(material), on_point)

    def follow(self, chosen: Point, network: Network, material: Material) -> Network:
        """``network``, which was trained on ``material``, made smaller in the way that was ``chosen`` for another."""
        return follow(chosen, network, count(network, material.texts, self._exchange), self._tools(material))

    def _tools(self, material: Material) -> Tools:
        tuner = Tuner(self._weights, material, self._recipe, self._exchange)
        return Tools(
            score=lambda network, bits: score_quantized(
                network, bits, self._texts, self._targets, self._exchange, self._clock
            ),
            refit_wide=tuner.refit_wide,
            tune_convolution=tuner.tune_convolution,
        )
