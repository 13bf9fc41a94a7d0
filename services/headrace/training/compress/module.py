"""A network's convolution as the module that training goes on with, and back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from headrace.model.network import Network
from headrace.model.textcnn import TextCNN
from headrace.training.assembling import convolution_arrays


def module_of(network: Network, *, scale: float = 1.0, dropout: float = 0.0) -> TextCNN:
    """The convolution of ``network`` with its logits divided by ``scale``."""
    module = TextCNN(
        len(network.word_hashes),
        len(network.labels),
        dimensions=network.words.shape[1],
        filters=len(network.filters[0]),
        widths=network.widths,
        dropout=dropout,
    )
    arrays = {
        "words.weight": network.words,
        "filter_bias": network.filter_bias,
        "head.weight": network.head / np.float32(scale),
        "head.bias": network.head_bias / np.float32(scale),
    }
    arrays |= {f"filters.{place}": filters for place, filters in enumerate(network.filters)}
    module.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in arrays.items()})
    return module


def with_module(network: Network, module: TextCNN, *, scale: float = 1.0) -> Network:
    """``network`` with the weights of ``module``, its logits multiplied by ``scale``."""
    return replace(network, **convolution_arrays(module, scale))
