"""Train a pruned network on a little, so that what is left makes up for what is gone."""

from __future__ import annotations

import msgspec

from headrace.model.network import Network
from headrace.training.assembling import assemble_network, convolution_of
from headrace.training.blend import Shares
from headrace.training.fit_convolution import ConvolutionFit
from headrace.training.material import Material, fit_wide_part
from headrace.training.ranks.exchange import Exchange
from headrace.training.recipe import Recipe
from headrace.training.vocabulary import Vocabulary


def tune(network: Network, shares: Shares, material: Material, recipe: Recipe, exchange: Exchange) -> Network:
    """Fine-tune the convolution of ``network``, whose parts count as ``shares``, and fit its wide part afresh.

    ``material`` is of this rank, with any vocabulary. The network is the same on every rank, as is the one returned.
    """
    own = material.with_vocabulary(Vocabulary(network.word_hashes, network.bigram_hashes))
    gentle = msgspec.structs.replace(recipe.convolution, **msgspec.structs.asdict(recipe.tuning))
    fit = ConvolutionFit(
        convolution_of(network, shares, gentle.dropout),
        own.rows(),
        own.targets,
        recipe=gentle,
        seed=recipe.seed,
        exchange=exchange,
    )
    while fit.done < gentle.epochs:
        fit.epoch()
    wide = fit_wide_part(own, recipe, exchange)
    return assemble_network(network.labels, network.max_tokens, own.vocabulary, fit.network, wide, shares)
