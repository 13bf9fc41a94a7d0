"""A pruned network trained on for a little, so that what is left makes up for what is gone."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from headrace.model.network import Network
from headrace.training.assembling import wide_arrays
from headrace.training.blend import Shares
from headrace.training.compress.module import module_of, with_module
from headrace.training.fit_convolution import ConvolutionFit
from headrace.training.material import Material, fit_wide_part
from headrace.training.ranks.exchange import Exchange
from headrace.training.recipe import Recipe
from headrace.training.vocabulary import Vocabulary

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
