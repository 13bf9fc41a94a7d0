"""Search for the smallest artifact inside an accuracy budget.

First each way of becoming smaller is tried alone, at some levels: what that costs in cross entropy. From these costs
one path is laid (:mod:`headrace.training.compress.path`). The networks along it are scored as they are, and by
bisection some are trained on and scored again: the last of these that the budget allows is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from headrace.model.network import Network
from headrace.model.quantizing import Bits
from headrace.training.compress.counts import Counts
from headrace.training.compress.curve import Curve, Point, Tuning
from headrace.training.compress.measure import Score
from headrace.training.compress.path import Value, alone, axes_of, lay_path, whole_plan
from headrace.training.compress.plan import Budget, Plan
from headrace.training.compress.prune import apply_plan
from headrace.training.compress.sizes import artifact_bytes

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
