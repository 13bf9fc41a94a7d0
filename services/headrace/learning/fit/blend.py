"""Blend the linear part and the convolution: fit the weight of each, and assemble both into one network of arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headrace.learning.data.vocabulary import Vocabulary
from headrace.learning.fit.convolution import TextCNN
from headrace.learning.fit.wide import WideWeights
from headrace.model.network import FIRST_WORD_ROW, Network


class BlendWeights(NamedTuple):
    """The positive factor that the logits of each part are multiplied by."""

    convolution: float
    wide: float


UNUSED = 1e-4
"""The weight of a convolution that is of no use; above zero, because the weights are stored as a share of their sum."""


def fit_blend(convolution: Tensor, wide: Tensor, targets: Tensor) -> BlendWeights:
    """The two weights with the least cross entropy of the weighted sum, from logits float32[rows, C] and targets
    int64[rows].

    Two numbers and not one, so that a part that is too sure of itself is not mistaken for one that knows less; the
    scores that come out are calibrated on these rows. Source: Wolpert, Stacked Generalization, 1992. Of few rows the
    best weights are chance: where both parts are not better than the wide part alone by more than a standard error, the
    convolution is :data:`UNUSED`.
    """
    both = BlendWeights(*_least((convolution, wide), targets))
    alone = BlendWeights(UNUSED, fit_scale(wide, targets))
    gains = losses(alone.wide * wide, targets) - losses(both.convolution * convolution + both.wide * wide, targets)
    return both if beyond_chance(gains) else alone


def fit_scale(logits: Tensor, targets: Tensor) -> float:
    """The positive factor with the least cross entropy of ``logits`` float32[rows, C] for ``targets`` int64[rows]."""
    return _least((logits,), targets)[0]


def losses(logits: Tensor, targets: Tensor) -> NDArray[np.float32]:
    """``float32[rows]``: the cross entropy of each row in nats."""
    found: NDArray[np.float32] = torch.nn.functional.cross_entropy(logits, targets, reduction="none").numpy()
    return found


def beyond_chance(gains: NDArray[np.floating]) -> bool:
    """Whether the mean of what each row gains is above its own standard error, and above nothing.

    The simpler of two models is kept where the better one is within a standard error. Source: Breiman et al.,
    Classification and Regression Trees, 1984.
    """
    return bool(gains.mean() > gains.std() / len(gains) ** 0.5)


def _least(parts: Sequence[Tensor], targets: Tensor) -> list[float]:
    """The factors of the ``parts`` with the least cross entropy of their sum, above 0 because logarithms are fitted."""
    logarithms = torch.zeros(len(parts), requires_grad=True)
    optimizer = torch.optim.LBFGS([logarithms], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = torch.stack([factor * part for factor, part in zip(logarithms.exp(), parts, strict=True)]).sum(dim=0)
        value = torch.nn.functional.cross_entropy(logits, targets)
        # Keeps a weight finite where the rows can't tell: every row right, or one part of no use at all.
        value = value + 1e-3 * logarithms.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    found: list[float] = logarithms.detach().exp().tolist()
    return found


def assemble_network(
    labels: tuple[str, ...],
    max_tokens: int,
    vocabulary: Vocabulary,
    convolution: TextCNN,
    wide: WideWeights,
    weights: BlendWeights,
) -> Network:
    """Both parts with their weights. A network's blend sums to one, so the sum of the weights goes into the parts."""
    total = weights.convolution + weights.wide
    return Network(
        labels=labels,
        max_tokens=max_tokens,
        widths=convolution.widths,
        word_hashes=vocabulary.words,
        bigram_hashes=vocabulary.bigrams,
        blend=weights.convolution / total,
        **convolution_arrays(convolution, total),
        **wide_arrays(wide, len(vocabulary.words), total),
    )


def convolution_arrays(convolution: TextCNN, scale: float) -> dict[str, Any]:
    """The fields of a Network that ``convolution`` gives, its logits multiplied by ``scale``."""
    arrays = {name: value.numpy().copy() for name, value in convolution.state_dict().items()}
    return {
        "words": convolution.word_vectors().numpy().copy(),
        "filters": tuple(arrays[f"filters.{place}"] for place in range(len(convolution.widths))),
        "filter_bias": arrays["filter_bias"],
        "head": arrays["head.weight"] * np.float32(scale),
        "head_bias": arrays["head.bias"] * np.float32(scale),
    }


def wide_arrays(wide: WideWeights, kept: int, scale: float) -> dict[str, Any]:
    """The fields of a Network of ``kept`` words that the wide part gives, its logits multiplied by ``scale``."""
    weights, bias = (value.numpy() * np.float32(scale) for value in wide)
    rows = FIRST_WORD_ROW + kept
    return {"wide_words": weights[:rows], "wide_bigrams": weights[rows:], "wide_bias": bias}
