"""The fitted parts as one network of plain arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from headrace.learning.data.vocabulary import Vocabulary
from headrace.learning.fit.blend import Shares
from headrace.learning.fit.wide import WideWeights
from headrace.model.network import FIRST_WORD_ROW, Network
from headrace.model.textcnn import TextCNN


def assemble_network(
    labels: tuple[str, ...],
    max_tokens: int,
    vocabulary: Vocabulary,
    convolution: TextCNN,
    wide: WideWeights,
    shares: Shares,
) -> Network:
    """Both parts with their shares. A network's blend sums to one, so the sum of the shares goes into the parts."""
    total = shares.convolution + shares.wide
    return Network(
        labels=labels,
        max_tokens=max_tokens,
        widths=convolution.widths,
        word_hashes=vocabulary.words,
        bigram_hashes=vocabulary.bigrams,
        blend=shares.convolution / total,
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
