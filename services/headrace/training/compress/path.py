"""The order in which a network is made smaller: from the whole one step by step to a very small one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import log

import msgspec

from headrace.model.network import Network
from headrace.model.quantizing import Bits
from headrace.training.compress.plan import Plan
from headrace.training.compress.sizes import artifact_bytes, table_bytes

# What of words, bigrams, dimensions and filters is tried. Less than the last is never kept: on few validation rows it
# can look as if nothing was lost.
_SHARES = (1.0, 0.7, 0.5, 0.35, 0.25, 0.18, 0.125)
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
        "words": list(_SHARES),
        "bigrams": list(_SHARES),
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


def _counts(whole: int, shares: Sequence[float]) -> list[Value]:
    """Whole numbers at these shares, each once."""
    return list(dict.fromkeys(max(1, round(share * whole)) for share in shares))
