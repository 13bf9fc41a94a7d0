"""Compress a trained network: search how on the validation rows, and do the same to the network trained on all rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from headrace.model.network import Network
from headrace.training.blend import Shares
from headrace.training.compress.counts import count
from headrace.training.compress.curve import Point
from headrace.training.compress.measure import score_float, score_quantized
from headrace.training.compress.plan import Budget
from headrace.training.compress.search import Compressed, Tools, follow, search
from headrace.training.compress.tuning import Tuner
from headrace.training.material import Material
from headrace.training.ranks.exchange import Exchange
from headrace.training.recipe import Recipe


class Compressor:
    """Compression of networks that were assembled with ``shares`` and trained by ``recipe``, on all ranks alike.

    ``texts`` and ``targets`` int64[texts]: this rank's validation rows and the indexes of their labels. ``clock`` gives
    seconds.
    """

    def __init__(
        self,
        texts: Sequence[str],
        targets: NDArray[np.int64],
        shares: Shares,
        recipe: Recipe,
        exchange: Exchange,
        clock: Callable[[], float],
    ) -> None:
        self._texts, self._targets = texts, targets
        self._shares, self._recipe, self._exchange, self._clock = shares, recipe, exchange, clock

    def search(
        self, network: Network, material: Material, budget: Budget, on_point: Callable[[Point], None]
    ) -> Compressed:
        """The smallest form of ``network``, which was trained on ``material``, that ``budget`` allows."""
        original = score_float(network, self._texts, self._targets, self._exchange)
        counts = count(network, material.texts, self._exchange)
        return search(network, counts, original, budget, self._tools(material), on_point)

    def follow(self, chosen: Point, network: Network, material: Material) -> Network:
        """``network``, which was trained on ``material``, made smaller in the way that was ``chosen`` for another."""
        return follow(chosen, network, count(network, material.texts, self._exchange), self._tools(material))

    def _tools(self, material: Material) -> Tools:
        tuner = Tuner(self._shares, material, self._recipe, self._exchange)
        return Tools(
            score=lambda network, bits: score_quantized(
                network, bits, self._texts, self._targets, self._exchange, self._clock
            ),
            refit_wide=tuner.refit_wide,
            tune_convolution=tuner.tune_convolution,
        )
