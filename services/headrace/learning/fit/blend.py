"""Blend the linear part and the convolution: fit the weight of each, and assemble both into one network of arrays."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from headrace.learning.data.vocabulary import Vocabulary
from headrace.learning.fit.convolution import TextCNN
from headrace.learning.fit.wide import WideWeights
from headrace.model.network import FIRST_WORD_ROW, Network


class BlendWeights(NamedTuple):
    """The positive factor that the logits of each part are multiplied by."""

    convolution: float
    wide: float


def fit_blend(convolution: Tensor, wide: Tensor, targets: Tensor) -> BlendWeights:
    """The two weights with the least cross entropy of the weighted sum, from logits float32[rows, C] and targets
    int64[rows].

    Two numbers and not one, so that a part that is too sure of itself is not mistaken for one that knows less; the
    scores that come out are calibrated on these rows. Source: Wolpert, Stacked Generalization, 1992. The weights are
    fitted as logarithms, which keeps them positive.
    """
    logarithms = torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.LBFGS([logarithms], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        first, second = logarithms.exp()
        value = torch.nn.functional.cross_entropy(first * convolution + second * wide, targets)
        # Keeps a weight finite where the rows can't tell: every row right, or one part of no use at all.
        value = value + 1e-3 * logarithms.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    first, second = logarithms.detach().exp().tolist()
    return BlendWeights(first, second)


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
