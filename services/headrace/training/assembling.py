"""The fitted parts as one network of plain arrays."""

from __future__ import annotations

import numpy as np

from headrace.model.network import FIRST_WORD_ROW, Network
from headrace.model.textcnn import TextCNN
from headrace.training.blend import Shares
from headrace.training.fit_wide import WideWeights
from headrace.training.vocabulary import Vocabulary


def assemble_network(
    labels: tuple[str, ...],
    max_tokens: int,
    vocabulary: Vocabulary,
    convolution: TextCNN,
    wide: WideWeights,
    shares: Shares,
) -> Network:
    """Both parts with their shares. A network's blend sums to one, so the sum of the shares goes into the parts."""
    total = np.float32(shares.convolution + shares.wide)
    words = FIRST_WORD_ROW + len(vocabulary.words)
    arrays = {name: value.numpy().copy() for name, value in convolution.state_dict().items()}
    weights, bias = wide.weights.numpy() * total, wide.bias.numpy() * total
    return Network(
        labels=labels,
        max_tokens=max_tokens,
        widths=convolution.widths,
        word_hashes=vocabulary.words,
        words=convolution.word_vectors().numpy().copy(),
        filters=tuple(arrays[f"filters.{place}"] for place in range(len(convolution.widths))),
        filter_bias=arrays["filter_bias"],
        head=arrays["head.weight"] * total,
        head_bias=arrays["head.bias"] * total,
        wide_words=weights[:words],
        bigram_hashes=vocabulary.bigrams,
        wide_bigrams=weights[words:],
        wide_bias=bias,
        blend=shares.convolution / (shares.convolution + shares.wide),
    )
