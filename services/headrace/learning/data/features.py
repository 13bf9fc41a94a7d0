"""Rows as the arrays that are fitted: words, label indexes, vocabulary, and how many words of a text are read."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.learning.data.files import Rows
from headrace.learning.data.split import Parts
from headrace.learning.data.taught import Taught
from headrace.learning.data.vocabulary import HashedTexts, Vocabulary, choose_vocabulary, hash_all
from headrace.learning.distributed.collectives import Exchange
from headrace.learning.fit.hyperparameters import Recipe, teaching_of
from headrace.learning.fit.wide import Targets, WideFeatures, WideWeights, fit_wide, wide_features
from headrace.model.integers import MAX_TOKENS
from headrace.model.words import hash_strings

MOST_CELLS = 2**25
"""Weights of the wide part, features times classes: of 370 classes or fewer it leaves out nothing of the recipe's."""


class Material(msgspec.Struct, frozen=True):
    """The rank's ``texts`` and their ``targets``; ``vocabulary`` and ``labels`` are those of all ranks."""

    texts: HashedTexts
    targets: Targets
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
    rows: Rows,
    labels: tuple[str, ...],
    recipe: Recipe,
    exchange: Exchange,
    vocabulary: Vocabulary | None = None,
    taught: Taught | None = None,
) -> Material:
    """Hash ``rows``; without a ``vocabulary`` agree with the other ranks on one, the smaller the more ``labels``.

    Behind them come the rows that were ``taught``, over classes among ``labels``; with them all targets are soft.
    """
    texts = hash_all(rows.texts if taught is None else rows.texts + taught.texts, recipe.max_tokens)
    places = {label: place for place, label in enumerate(labels)}
    targets: Targets = np.fromiter((places[label] for label in rows.labels), np.int64, len(rows))
    if taught is not None:
        teaching = teaching_of(recipe)
        soft = taught.of_classes(labels).targets(teaching.temperature)
        targets = np.concatenate([np.eye(len(labels), dtype=np.float32)[targets], soft])
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


MOST_BY_ITSELF = 2048
"""Words of a text that a training reads without being told to: an answer's time grows with its words."""

_STEP = 256
# Bounds the memory of counting: a text's hashes take eight bytes for each of its own.
_COUNTED_AT_ONCE = 256


class Lengths(msgspec.Struct, frozen=True, kw_only=True):
    """``max_tokens`` words of a text are read. Of the ``texts`` of all ranks ``truncated`` have more; the longest has
    ``longest`` words.
    """

    max_tokens: int
    longest: int
    truncated: int
    texts: int


def follow_lengths(recipe: Recipe, parts: Parts, exchange: Exchange, *, follow: bool) -> tuple[Recipe, Lengths]:
    """The recipe whose ``max_tokens`` is that of the longest training or validation text of all ranks, if ``follow``.

    It is a multiple of 256, no less than the recipe's own and at most MOST_BY_ITSELF. A collective.
    """
    split = parts.split
    learnt, tested = (word_counts(texts) for texts in (split.train.texts + split.valid.texts, split.test.texts))
    if follow:
        longest = max(exchange.gather(int(learnt.max(initial=0)), int))
        wanted = min(-(-longest // _STEP) * _STEP, MOST_BY_ITSELF)
        recipe = msgspec.structs.replace(recipe, max_tokens=max(recipe.max_tokens, wanted))
    counts = np.concatenate([learnt, tested])
    own = Lengths(
        max_tokens=recipe.max_tokens,
        longest=int(counts.max(initial=0)),
        truncated=int((counts > recipe.max_tokens).sum()),
        texts=len(counts),
    )
    told = exchange.gather(own, Lengths)
    return recipe, Lengths(
        max_tokens=recipe.max_tokens,
        longest=max(one.longest for one in told),
        truncated=sum(one.truncated for one in told),
        texts=sum(one.texts for one in told),
    )


def word_counts(texts: Sequence[str]) -> NDArray[np.int64]:
    """How many words each text has; from MAX_TOKENS + 1 on they are not counted."""
    starts = range(0, len(texts), _COUNTED_AT_ONCE)
    counts = [np.diff(hash_strings(texts[first : first + _COUNTED_AT_ONCE], MAX_TOKENS + 1)[1]) for first in starts]
    return np.concatenate([np.empty(0, np.int64), *counts])
