"""The fitted parts as one network of plain arrays."""

from __future__ import annotations

import numpy as np
import torch

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
        words=arrays["words.weight"],
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


def convolution_of(network: Network, shares: Shares, dropout: float) -> TextCNN:
    """The convolution that :func:`assemble_network` was given, to be trained on."""
    kept = len(network.word_hashes)
    convolution = TextCNN(
        kept,
        len(network.labels),
        dimensions=network.words.shape[1],
        filters=network.filters[0].shape[0],
        widths=network.widths,
        dropout=dropout,
    )
    total = np.float32(shares.convolution + shares.wide)
    arrays = {
        "words.weight": network.words,
        "filter_bias": network.filter_bias,
        "head.weight": network.head / total,
        "head.bias": network.head_bias / total,
        **{f"filters.{place}": filters for place, filters in enumerate(network.filters)},
    }
    convolution.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in arrays.items()})
    return convolution
