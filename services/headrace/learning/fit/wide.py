"""Fit the wide part: Naive Bayes log-count ratios first, then logistic regression that stays near them.

Source: Wang and Manning, Baselines and Bigrams: Simple, Good Sentiment and Topic Classification, ACL 2012. Theirs is
for two classes; here every class has its ratios against all the others, and one softmax joins them.

Of many classes each has few of the features. There only the weights of features that a class has are fitted, and the
others stay what their ratios say: a vector as long as the texts are, where the table is features times classes.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from headrace.learning.distributed.collectives import Exchange
from headrace.learning.fit.hyperparameters import WideRecipe
from headrace.model.wide import Cells, WideFeatures, add_slopes, cells_at, texts_of, wide_logits

# One text more in which every feature is seen and one in which it is not, so that no ratio is infinite.
_SMOOTHING = 1.0
FITTED_WHOLE = 180
"""Classes up to which every weight is fitted; above it a weight only where the class has the feature."""
HISTORY = 8
"""Steps that L-BFGS remembers, each by two vectors as long as what is fitted."""
# Of many classes a step takes the longer, and the fit has settled by then.
_STEPS_OF_MANY = 16
LOGITS_AT_ONCE = 2**24
"""Logits of texts that are held at once."""
_CELLS_AT_ONCE = 2**20


class WideWeights(NamedTuple):
    """``weights`` float32[columns, C] for the columns of WideFeatures, and ``bias`` float32[C]."""

    weights: torch.Tensor
    bias: torch.Tensor


def class_counts(
    features: WideFeatures, targets: NDArray[np.int64], columns: int, labels: int, exchange: Exchange
) -> NDArray[np.int64]:
    """``int64[columns, labels]``: texts of the class that have the feature, however often they have it."""
    texts = np.repeat(np.arange(len(targets)), np.diff(features.starts))
    present = np.unique(texts * columns + features.columns)
    cells = present % columns * labels + targets[present // columns]
    return exchange.sum(np.bincount(cells, minlength=columns * labels)).reshape(columns, labels)


def log_count_ratios(counts: NDArray[np.int64]) -> torch.Tensor:
    """``float32[columns, labels]``: ln of (share of the feature within the class / its share within the others)."""
    columns, labels = counts.shape
    # Whole numbers, so these sums are exact in any order.
    of_class = counts.sum(axis=0) + columns * _SMOOTHING
    of_others = of_class.sum() - columns * labels * _SMOOTHING + columns * 2 * _SMOOTHING - of_class
    ratios = np.empty(counts.shape, np.float32)
    rows = max(1, _CELLS_AT_ONCE // labels)
    for first in range(0, columns, rows):
        inside = counts[first : first + rows] + _SMOOTHING
        outside = inside.sum(axis=1, keepdims=True) - labels * _SMOOTHING + 2 * _SMOOTHING - inside
        ratios[first : first + rows] = np.log(inside / of_class) - np.log(outside / of_others)
    return torch.from_numpy(ratios)


def fit_wide(
    features: WideFeatures,
    targets: NDArray[np.int64],
    columns: int,
    labels: int,
    recipe: WideRecipe,
    exchange: Exchange,
) -> WideWeights:
    """Fit the weights of ``columns`` features for ``labels`` classes to ``targets`` int64[texts] of all ranks.

    A weight is a ratio times a factor; the factors start at ``recipe.prior`` and pay for leaving it. The loss is convex
    and fitted on all texts at once by L-BFGS, so there is no learning rate, no order of texts and no seed. Above
    FITTED_WHOLE classes the factors of features that a class never has stay at the prior.

    Rank 0 alone runs L-BFGS, and every rank answers for its own texts: run on all of them, it could take another path
    on a machine of another kind, whose sums end in other bits.
    """
    counts = class_counts(features, targets, columns, labels, exchange)
    ratios = log_count_ratios(counts)
    cells = None if labels <= FITTED_WHOLE else cells_at(np.flatnonzero(counts), columns, labels)
    del counts
    rows = float(sum(exchange.gather(len(targets), int)))
    table = _Table(ratios, cells, recipe.prior)
    slopes = _Slopes(table, torch.from_numpy(targets), features, rows, exchange)
    start = torch.cat([torch.full((table.fitted,), recipe.prior), torch.zeros(labels)])
    steps = recipe.iterations if cells is None else min(recipe.iterations, _STEPS_OF_MANY)
    found = _minimize(slopes, start, recipe, steps, table.fitted) if exchange.rank == 0 else slopes.serve(start)
    return WideWeights(table.weights(found[: table.fitted]), found[table.fitted :].clone())


class _Table:
    """The weights as ``ratios`` times factors, of which those of ``cells`` are fitted, or all."""

    def __init__(self, ratios: torch.Tensor, cells: Cells | None, prior: float) -> None:
        self._ratios, self._cells, self.labels = ratios, cells, ratios.shape[1]
        if cells is None:
            self.fitted = ratios.numel()
            return
        self.fitted = len(cells.places)
        self._places = torch.from_numpy(cells.places)
        self._fitted_ratios = ratios.view(-1)[self._places]
        self._weights = ratios.mul_(prior)

    def weights(self, factors: torch.Tensor) -> torch.Tensor:
        """``float32[columns, C]`` by ``factors`` float32[fitted]; of cells it is one table, written anew each time."""
        if self._cells is None:
            return factors.view_as(self._ratios) * self._ratios
        self._weights.view(-1)[self._places] = factors * self._fitted_ratios
        return self._weights

    def no_slopes(self) -> torch.Tensor:
        """Zeros, for :meth:`add` to add to."""
        return torch.zeros_like(self._ratios) if self._cells is None else torch.zeros(self.fitted)

    def add(self, slopes: torch.Tensor, features: WideFeatures, upstream: torch.Tensor) -> None:
        """Add the gradient of the weights."""
        add_slopes(features, upstream, slopes, self._cells)

    def of_factors(self, slopes: torch.Tensor) -> torch.Tensor:
        """``float32[fitted]``: the gradient of the factors, from that of the weights, which is overwritten."""
        return slopes.mul_(self._ratios if self._cells is None else self._fitted_ratios).view(-1)


def _minimize(slopes: _Slopes, start: torch.Tensor, recipe: WideRecipe, steps: int, weights: int) -> torch.Tensor:
    point = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [point], max_iter=steps, history_size=HISTORY, tolerance_grad=1e-6, line_search_fn="strong_wolfe"
    )

    def loss() -> torch.Tensor:
        value, slope = slopes.at(point.detach())
        away = point.detach()[:weights] - recipe.prior
        slope[:weights] += recipe.pull / slopes.rows * away
        point.grad = slope
        return torch.as_tensor(value + recipe.pull * float(away.square().sum()) / (2 * slopes.rows))

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return slopes.end(point.detach())


class _Slopes:
    """The mean cross entropy over the texts of all ranks, and its gradient, wherever rank 0 asks for it.

    A point is the factors, then the bias, in one vector.
    """

    def __init__(
        self, table: _Table, targets: torch.Tensor, features: WideFeatures, rows: float, exchange: Exchange
    ) -> None:
        self.rows = rows
        self._table, self._exchange = table, exchange
        at_once = max(1, LOGITS_AT_ONCE // table.labels)
        bounds = [0, *range(at_once, len(targets), at_once), len(targets)]
        self._blocks = [(texts_of(features, first, end), targets[first:end]) for first, end in pairwise(bounds)]

    def at(self, point: torch.Tensor) -> tuple[float, torch.Tensor]:
        self._share(point, goes_on=True)
        return self._answer(point)

    def end(self, point: torch.Tensor) -> torch.Tensor:
        """Tell the others the result, which they return from :meth:`serve`."""
        self._share(point, goes_on=False)
        return point

    def serve(self, like: torch.Tensor) -> torch.Tensor:
        """Answer rank 0 until it has found the minimum, and return it. ``like`` has the shape of a point."""
        nothing = torch.zeros_like(like)
        while True:
            shared = self._share(nothing, goes_on=False)
            if not shared[-1]:
                return shared[:-1]
            self._answer(shared[:-1])

    def _share(self, point: torch.Tensor, *, goes_on: bool) -> torch.Tensor:
        # Only rank 0 adds anything but zeros, so the sum is what rank 0 says.
        message = torch.cat([point, torch.tensor([float(goes_on)])])
        return torch.from_numpy(self._exchange.sum(message.numpy()))

    def _answer(self, point: torch.Tensor) -> tuple[float, torch.Tensor]:
        table = self._table
        weights, bias = table.weights(point[: table.fitted]), point[table.fitted :]
        slopes, of_bias, value = table.no_slopes(), torch.zeros_like(bias), torch.zeros(1)
        for features, targets in self._blocks:
            logits = wide_logits(weights, bias, features).requires_grad_()
            part = torch.nn.functional.cross_entropy(logits, targets, reduction="sum") / self.rows
            part.backward()  # type: ignore[no-untyped-call]
            assert logits.grad is not None  # noqa: S101 - it is a leaf of the sum
            table.add(slopes, features, logits.grad)
            of_bias += logits.grad.sum(dim=0)
            value += part.detach()
        own = torch.cat([table.of_factors(slopes), of_bias, value])
        total = torch.from_numpy(self._exchange.sum(own.numpy()))
        return float(total[-1]), total[:-1]
