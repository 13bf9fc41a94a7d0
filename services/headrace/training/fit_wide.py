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
from headrace.training.recipe import WideRecipe

# One text more in which every feature is seen and one in which it is not, so that no ratio is infinite.
_SMOOTHING = 1.0


class WideWeights(NamedTuple):
    """``weights`` float32[columns, C] for the columns of WideFeatures, and ``bias`` float32[C]."""

    weights: torch.Tensor
    bias: torch.Tensor


def log_count_ratios(features: WideFeatures, targets: NDArray[np.int64], columns: int, labels: int) -> torch.Tensor:
    """``float32[columns, labels]``: ln of (share of the feature within the class / its share within the others).

    A text counts a feature once, however often it has it.
    """
    texts = np.repeat(np.arange(len(targets)), np.diff(features.starts))
    present = np.unique(texts * columns + features.columns)
    cells = present % columns * labels + targets[present // columns]
    inside = np.bincount(cells, minlength=columns * labels).reshape(columns, labels) + _SMOOTHING
    outside = inside.sum(axis=1, keepdims=True) - labels * _SMOOTHING + 2 * _SMOOTHING - inside
    ratios = np.log(inside / inside.sum(axis=0)) - np.log(outside / outside.sum(axis=0))
    return torch.from_numpy(ratios.astype(np.float32))


def fit_wide(
    features: WideFeatures, targets: NDArray[np.int64], columns: int, labels: int, recipe: WideRecipe
) -> WideWeights:
    """Fit the weights of ``columns`` features for ``labels`` classes to ``targets`` int64[texts].

    A weight is a ratio times a factor; the factors start at ``recipe.prior`` and pay for leaving it. The loss is convex
    and fitted on all texts at once by L-BFGS, so there is no learning rate, no order of texts and no seed.
    """
    ratios = log_count_ratios(features, targets, columns, labels)
    wanted = torch.from_numpy(targets)
    factors = torch.full((columns, labels), recipe.prior, requires_grad=True)
    bias = torch.zeros(labels, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [factors, bias],
        max_iter=recipe.iterations,
        history_size=8,
        tolerance_grad=1e-6,
        line_search_fn="strong_wolfe",
    )

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        logits = wide_logits(factors * ratios, bias, features)
        distance = (factors - recipe.prior).square().sum() / (2 * len(targets))
        value = torch.nn.functional.cross_entropy(logits, wanted) + recipe.pull * distance
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return WideWeights((factors * ratios).detach(), bias.detach())
