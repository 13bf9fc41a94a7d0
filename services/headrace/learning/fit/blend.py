"""Join the convolution and the wide part: how much each one's logits count, fitted on rows that neither has seen."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Shares(NamedTuple):
    """What each part's logits are multiplied by; both positive."""

    convolution: float
    wide: float


def fit_shares(convolution: Tensor, wide: Tensor, targets: Tensor) -> Shares:
    """The two factors with the least cross entropy of their sum, from logits float32[rows, C] and targets int64[rows].

    Two numbers and not one, so that a part that is too sure of itself is not mistaken for one that knows less; the
    scores that come out are calibrated on these rows. Source: Wolpert, Stacked Generalization, 1992. The factors are
    fitted as logarithms, which keeps them positive.
    """
    logarithms = torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.LBFGS([logarithms], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        first, second = logarithms.exp()
        value = torch.nn.functional.cross_entropy(first * convolution + second * wide, targets)
        # Keeps a factor finite where the rows can't tell: every row right, or one part of no use at all.
        value = value + 1e-3 * logarithms.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    first, second = logarithms.detach().exp().tolist()
    return Shares(first, second)
