"""Fit the wide part: Naive Bayes log-count ratios first, then logistic regression that stays near them.

Source: Wang and Manning, Baselines and Bigrams: Simple, Good Sentiment and Topic Classification, ACL 2012. Theirs is
for two classes; here every class has its ratios against all the others, and one softmax joins them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from headrace.model.wide import WideFeatures, wide_logits
from headrace.training.ranks.exchange import Exchange
from headrace.training.recipe import WideRecipe

# One text more in which every feature is seen and one in which it is not, so that no ratio is infinite.
_SMOOTHING = 1.0


class WideWeights(NamedTuple):
    """``weights`` float32[columns, C] for the columns of WideFeatures, and ``bias`` float32[C]."""

    weights: torch.Tensor
    bias: torch.Tensor


def log_count_ratios(
    features: WideFeatures, targets: NDArray[np.int64], columns: int, labels: int, exchange: Exchange
) -> torch.Tensor:
    """``float32[columns, labels]``: ln of (share of the feature within the class / its share within the others).

    A text counts a feature once, however often it has it.
    """
    texts = np.repeat(np.arange(len(targets)), np.diff(features.starts))
    present = np.unique(texts * columns + features.columns)
    cells = present % columns * labels + targets[present // columns]
    counts = exchange.sum(np.bincount(cells, minlength=columns * labels))
    inside = counts.reshape(columns, labels) + _SMOOTHING
    outside = inside.sum(axis=1, keepdims=True) - labels * _SMOOTHING + 2 * _SMOOTHING - inside
    ratios = np.log(inside / inside.sum(axis=0)) - np.log(outside / outside.sum(axis=0))
    return torch.from_numpy(ratios.astype(np.float32))


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
    and fitted on all texts at once by L-BFGS, so there is no learning rate, no order of texts and no seed.

    Rank 0 alone runs L-BFGS, and every rank answers for its own texts: run on all of them, it could take another path
    on a machine of another kind, whose sums end in other bits.
    """
    ratios = log_count_ratios(features, targets, columns, labels, exchange)
    rows = float(sum(exchange.gather(len(targets), int)))
    slopes = _Slopes(ratios, torch.from_numpy(targets), features, rows, exchange)
    start = torch.cat([torch.full((columns * labels,), recipe.prior), torch.zeros(labels)])
    found = _minimize(slopes, start, recipe, columns * labels) if exchange.rank == 0 else slopes.serve(start)
    factors, bias = found[: columns * labels].view(columns, labels), found[columns * labels :]
    return WideWeights(factors * ratios, bias.clone())


def _minimize(slopes: _Slopes, start: torch.Tensor, recipe: WideRecipe, weights: int) -> torch.Tensor:
    point = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [point], max_iter=recipe.iterations, history_size=8, tolerance_grad=1e-6, line_search_fn="strong_wolfe"
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
        self, ratios: torch.Tensor, targets: torch.Tensor, features: WideFeatures, rows: float, exchange: Exchange
    ) -> None:
        self.rows = rows
        self._ratios, self._targets, self._features, self._exchange = ratios, targets, features, exchange

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
        factors = point[: self._ratios.numel()].view_as(self._ratios).clone().requires_grad_()
        bias = point[self._ratios.numel() :].clone().requires_grad_()
        logits = wide_logits(factors * self._ratios, bias, self._features)
        value = torch.nn.functional.cross_entropy(logits, self._targets, reduction="sum") / self.rows
        value.backward()  # type: ignore[no-untyped-call]
        assert factors.grad is not None  # noqa: S101 - both are leaves of the sum
        assert bias.grad is not None  # noqa: S101
        own = torch.cat([factors.grad.reshape(-1), bias.grad, value.detach().reshape(1)])
        total = torch.from_numpy(self._exchange.sum(own.numpy()))
        return float(total[-1]), total[:-1].clone()
