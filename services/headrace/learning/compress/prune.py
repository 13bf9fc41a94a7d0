"""Structured pruning: a smaller network of the same kind, which is faster without sparse kernels; and training it on.

Dropped is what changes the logits least over the training rows. A word or bigram changes them by its wide weights each
time it occurs; a filter by its weights in the head, as far as its feature varies. What all labels share changes
nothing.
"""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from headrace.learning.compress.curve import Plan
from headrace.learning.data.features import Material, fit_wide_part
from headrace.learning.data.vocabulary import HashedTexts, Vocabulary
from headrace.learning.distributed.collectives import Exchange
from headrace.learning.fit.blend import BlendWeights, convolution_arrays, wide_arrays
from headrace.learning.fit.convolution import ConvolutionFit, TextCNN, flatten
from headrace.learning.fit.hyperparameters import Recipe
from headrace.model.network import (
    FIRST_WORD_ROW,
    PADDING_ROW,
    Network,
    adjacent,
    keep_rows,
    pair_hashes,
    rows_of,
    word_rows,
)


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
    """Goes on training networks that were assembled with ``weights``, on this rank's ``material`` (any vocabulary).

    What comes out is the same on every rank.
    """

    def __init__(self, weights: BlendWeights, material: Material, recipe: Recipe, exchange: Exchange) -> None:
        self._scale = weights.convolution + weights.wide
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


# Texts of each rank from which the filters' answers are known; more change the ranking little.
_MOST_TEXTS = 4096
_BATCH = 256


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """Over the rows of all ranks. ``words`` int64[V + 2]: occurrences of each row of words; ``bigrams`` int64[B].

    ``mean`` and ``deviation`` float32[widths x F]: of each filter's feature, after the rectifier.
    """

    words: NDArray[np.int64]
    bigrams: NDArray[np.int64]
    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]


def count(network: Network, texts: HashedTexts, exchange: Exchange) -> Counts:
    """Count over every rank's ``texts``."""
    pairs = rows_of(pair_hashes(texts.hashes)[adjacent(texts.starts)], network.bigram_hashes)
    words = np.bincount(word_rows(texts.hashes, network.word_hashes), minlength=len(network.words))
    sums = exchange.sum(_feature_sums(network, texts))
    mean = sums[0] / sums[2]
    return Counts(
        words=exchange.sum(words),
        bigrams=exchange.sum(np.bincount(pairs[pairs >= 0], minlength=len(network.bigram_hashes))),
        mean=mean.astype(np.float32),
        deviation=np.sqrt(np.maximum(sums[1] / sums[2] - mean**2, 0)).astype(np.float32),
    )


def without_words(counts: Counts, kept: NDArray[np.int64]) -> NDArray[np.int64]:
    """``counts.words`` for a network that keeps the words at these places only; the others count as unknown."""
    words = counts.words[FIRST_WORD_ROW:][kept]
    return np.concatenate([[0, counts.words.sum() - words.sum()], words])


def _feature_sums(network: Network, texts: HashedTexts) -> NDArray[np.float64]:
    """``float64[3, widths x F]``: of the features of this rank's texts the sum, that of squares, and how many."""
    module = module_of(network)
    features = module.head.in_features
    module.head = torch.nn.Identity()  # type: ignore[assignment]  # the features are wanted, not the logits
    module.eval()
    rows = texts.rows(network.word_hashes)[:_MOST_TEXTS]
    sums = np.zeros((3, features))
    with torch.no_grad():
        for first in range(0, len(rows), _BATCH):
            batch = module(flatten(rows[first : first + _BATCH], max(network.widths))).to(torch.float64)
            sums[0] += batch.sum(dim=0).numpy()
            sums[1] += batch.square().sum(dim=0).numpy()
            sums[2] += len(batch)
    return sums


def with_dimensions(network: Network, dimensions: int, occurrences: NDArray[np.int64]) -> Network:
    """``network`` with words and filters of ``dimensions``, unless they have no more already.

    Only the products of words and filters matter to an answer. Of all words of so few dimensions these have the least
    squared error of the products, a word counting once more than ``occurrences`` int64[V + 2] says. Source: Eckart and
    Young, The Approximation of One Matrix by Another of Lower Rank, Psychometrika 1936: the products are projected onto
    their first right singular vectors, which become the filters.

    Then words and filters are turned alike by a cosine transform. The products stay; the first dimension, which would
    be the largest by far, is spread over all, so that few bits of a row with one step lose less.
    """
    if network.words.shape[1] <= dimensions:
        return network
    words = network.words.astype(np.float64)
    columns = np.concatenate([_columns(filters) for filters in network.filters], axis=1)
    triangle = np.linalg.qr(np.sqrt(occurrences + 1.0)[:, None] * words, mode="r")
    _, _, vectors = np.linalg.svd(triangle @ columns, full_matrices=False)
    # Fewer words or filters than dimensions have fewer vectors; the dimensions that are left are zero.
    basis = np.zeros((dimensions, columns.shape[1]))
    basis[: len(vectors)] = vectors[:dimensions]
    basis = _cosines(dimensions) @ basis
    projected = (words @ (columns @ basis.T)).astype(np.float32)
    projected[PADDING_ROW] = 0
    filters = []
    first = 0
    for width, before in zip(network.widths, network.filters, strict=True):
        taps = basis[:, first : first + width * len(before)].reshape(dimensions, width, len(before))
        filters.append(np.ascontiguousarray(taps.transpose(2, 1, 0), dtype=np.float32))
        first += width * len(before)
    return replace(network, words=projected, filters=tuple(filters))


def _cosines(count: int) -> NDArray[np.float64]:
    """The orthonormal matrix of the discrete cosine transform (DCT-II), ``float64[count, count]``."""
    places = np.arange(count)
    cosines: NDArray[np.float64] = np.sqrt(2 / count) * np.cos(np.pi / count * (places[:, None] + 0.5) * places)
    cosines[:, 0] = np.sqrt(1 / count)
    return cosines


def _columns(filters: NDArray[np.float32]) -> NDArray[np.float64]:
    """``float64[D, width x F]`` from float32[F, width, D]."""
    return filters.transpose(2, 1, 0).reshape(filters.shape[2], -1).astype(np.float64)


_CELLS_AT_ONCE = 2**20


def apply_plan(network: Network, plan: Plan, counts: Counts) -> Network:
    """What ``plan`` keeps of ``network``, by falling training frequency as before; ``counts`` are of this network.

    A dropped word is an unknown word from then on; what a dropped filter adds on average goes into the head's bias.
    """
    words = _most(_importance(network.wide_words[FIRST_WORD_ROW:], counts.words[FIRST_WORD_ROW:]), plan.words)
    bigrams = _most(_importance(network.wide_bigrams, counts.bigrams), plan.bigrams)
    smaller = keep_rows(_keep_filters(network, plan.filters, counts), words, bigrams)
    return with_dimensions(smaller, plan.dimensions, without_words(counts, words))


def _importance(weights: NDArray[np.float32], occurrences: NDArray[np.int64]) -> NDArray[np.float64]:
    """By what the rows' logits move, in the root of the mean square: float64[n] from weights float32[n, C]."""
    return np.sqrt(occurrences) * _spread(weights)


def _spread(weights: NDArray[np.float32]) -> NDArray[np.float64]:
    spread = np.empty(len(weights))
    # In pieces: the copies in float64 of a table for many labels would be the largest of a training.
    count = max(1, _CELLS_AT_ONCE // weights.shape[1])
    for first in range(0, len(weights), count):
        rows = weights[first : first + count]
        centred = rows - rows.mean(axis=1, keepdims=True)
        spread[first : first + count] = np.linalg.norm(centred.astype(np.float64), axis=1)
    return spread


def _most(importance: NDArray[np.float64], share: float) -> NDArray[np.int64]:
    """The places of the ``share`` with the greatest importance, in order; of equals the first."""
    kept = np.argsort(-importance, kind="stable")[: round(share * len(importance))]
    return np.sort(kept)


def _keep_filters(network: Network, count: int, counts: Counts) -> Network:
    filters = len(network.filters[0])
    if filters <= count:
        return network
    importance = (_spread(network.head.T) * counts.deviation).reshape(len(network.widths), filters)
    kept = [_most(of_width, count / filters) for of_width in importance]
    places = np.concatenate([of_width + place * filters for place, of_width in enumerate(kept)])
    dropped = np.setdiff1d(np.arange(len(network.widths) * filters), places)
    return replace(
        network,
        filters=tuple(before[of_width] for before, of_width in zip(network.filters, kept, strict=True)),
        filter_bias=network.filter_bias[places],
        head=np.ascontiguousarray(network.head[:, places]),
        head_bias=network.head_bias + network.head[:, dropped] @ counts.mean[dropped],
    )
