"""A network's convolution as the module that training goes on with, and back.

A pruned network trained on for a little, so that what is left makes up for what is gone.
"""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import torch

from headrace.learning.data.features import Material, fit_wide_part
from headrace.learning.data.vocabulary import Vocabulary
from headrace.learning.distributed.collectives import Exchange
from headrace.learning.fit.blend import Shares
from headrace.learning.fit.build_network import convolution_arrays, wide_arrays
from headrace.learning.fit.convolution import ConvolutionFit
from headrace.learning.fit.hyperparameters import Recipe
from headrace.model.network import Network
from headrace.model.textcnn import TextCNN


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


# Of the whole training's: enough for the parts that are left to fit each other, too little to learn the rows by heart.
_EPOCHS = 2
_RATE = 0.5


class Tuner:
    """Trains networks on whose parts were assembled with ``shares``, on this rank's ``material`` (of any vocabulary).

    What comes out is the same on every rank.
    """

    def __init__(self, shares: Shares, material: Material, recipe: Recipe, exchange: Exchange) -> None:
        self._scale = shares.convolution + shares.wide
        self._material, self._recipe, self._exchange = material, recipe, exchange

    def refit_wide(self, network: Network) -> Network:
        """Fit the wide part afresh to the words and bigrams that are left."""
        wide = fit_wide_part(self._kept(network), self._recipe, self._exchange)
        return replace(network, **wide_arrays(wide, len(network.word_hashes), self._scale))

    def tune_convolution(self, network: Network) -> Network:
        """Train the convolution on for some epochs."""
        recipe, kept = self._recipe.convolution, self._kept(network)
        fit = ConvolutionFit(
            module_of(network, scale=self._scale, dropout=recipe.dropout),
            kept.rows(),
            kept.targets,
            recipe=msgspec.structs.replace(
                recipe, epochs=_EPOCHS, rate=_RATE * recipe.rate, word_rate=_RATE * recipe.word_rate
            ),
            seed=self._recipe.seed,
            exchange=self._exchange,
        )
        while fit.done < _EPOCHS:
            fit.epoch()
        return with_module(network, fit.network, scale=self._scale)

    def _kept(self, network: Network) -> Material:
        return self._material.with_vocabulary(Vocabulary(network.word_hashes, network.bigram_hashes))
