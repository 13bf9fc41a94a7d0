"""Rows made ready for a fit: their words, the index of each label, and what is kept of the words."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.learning.data.files import Rows
from headrace.learning.data.vocabulary import HashedTexts, Vocabulary, choose_vocabulary, hash_all
from headrace.learning.distributed.collectives import Exchange
from headrace.learning.fit.hyperparameters import Recipe
from headrace.learning.fit.wide import WideWeights, fit_wide
from headrace.model.wide import WideFeatures, wide_features

MOST_CELLS = 2**25
"""Weights of the wide part, features times classes: of 370 classes or fewer it leaves out nothing of the recipe's."""


class Material(msgspec.Struct, frozen=True):
    """The rank's ``texts`` and ``targets`` int64[texts]; ``vocabulary`` and ``labels`` are those of all ranks."""

    texts: HashedTexts
    targets: NDArray[np.int64]
    vocabulary: Vocabulary
    labels: tuple[str, ...]

    def rows(self) -> list[NDArray[np.int64]]:
        """Each text's words as rows of the tables."""
        return self.texts.rows(self.vocabulary.words)

    def features(self) -> WideFeatures:
        """What the wide part sees of each text."""
        kept = self.vocabulary
        return wide_features(self.texts.hashes, self.texts.starts, kept.words, kept.bigrams)

    def with_vocabulary(self, vocabulary: Vocabulary) -> Material:
        """The same texts for a network that keeps other words."""
        return msgspec.structs.replace(self, vocabulary=vocabulary)


def prepare(
    rows: Rows, labels: tuple[str, ...], recipe: Recipe, exchange: Exchange, vocabulary: Vocabulary | None = None
) -> Material:
    """Hash ``rows``; without a ``vocabulary`` agree with the other ranks on one, the smaller the more ``labels``."""
    texts = hash_all(rows.texts, recipe.max_tokens)
    places = {label: place for place, label in enumerate(labels)}
    targets = np.fromiter((places[label] for label in rows.labels), np.int64, len(rows))
    if vocabulary is None:
        vocabulary = choose_vocabulary(
            texts,
            exchange,
            max_words=recipe.max_words,
            max_bigrams=recipe.max_bigrams,
            least_bigram_count=recipe.least_bigram_count,
            max_columns=MOST_CELLS // len(labels),
        )
    return Material(texts, targets, vocabulary, labels)


def fit_wide_part(material: Material, recipe: Recipe, exchange: Exchange) -> WideWeights:
    """Fit the wide part to the material of all ranks."""
    columns, labels = material.vocabulary.columns, len(material.labels)
    return fit_wide(material.features(), material.targets, columns, labels, recipe.wide, exchange)
