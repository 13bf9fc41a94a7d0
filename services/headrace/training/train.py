"""From split rows to a network: fit both parts, blend them on the validation rows, and fit again on all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from headrace.model.network import Network
from headrace.model.textcnn import TextCNN
from headrace.model.wide import WideFeatures, wide_features, wide_logits
from headrace.training.assembling import assemble_network
from headrace.training.dataset import DatasetError, Rows
from headrace.training.fit_convolution import training_epochs
from headrace.training.fit_wide import WideWeights, fit_wide
from headrace.training.recipe import Recipe
from headrace.training.search import Epoch, best_epoch, search_epochs
from headrace.training.vocabulary import HashedTexts, Vocabulary, choose_vocabulary, hash_all


class Trained(msgspec.Struct, frozen=True, kw_only=True):
    """A network and how it came about: the epochs of the search, and the one whose length and shares were taken."""

    network: Network
    epochs: tuple[Epoch, ...]
    chosen: Epoch


class _Material(msgspec.Struct, frozen=True):
    """Rows made ready for one fit: their words, the index of each label, and what is kept of the words."""

    texts: HashedTexts
    targets: NDArray[np.int64]
    vocabulary: Vocabulary


def train(
    train_rows: Rows,
    valid_rows: Rows,
    recipe: Recipe,
    *,
    on_epoch: Callable[[Epoch], None],
    on_refit: Callable[[int, int], None],
) -> Trained:
    """Train with ``recipe``: equal rows and recipe give an equal network on one machine.

    Two fits. The first, on the training rows, is followed on the validation rows to find how many epochs the
    convolution takes and what each part's logits are multiplied by. The second fits both parts afresh on training and
    validation rows together, with these numbers. ``on_epoch`` is told of each epoch of the first, ``on_refit`` of each
    of the second: its number and how many there will be. Raises DatasetError for fewer than two classes.
    """
    labels = tuple(sorted(set(train_rows.labels) | set(valid_rows.labels)))
    if len(labels) < 2:
        raise DatasetError(f"training needs at least two classes, but all rows are {labels[0]!r}")
    with _deterministic(recipe.threads):
        epochs = _search(train_rows, valid_rows, labels, recipe, on_epoch)
        chosen = best_epoch(epochs)
        material = _prepare(train_rows + valid_rows, labels, recipe)
        wide = _fit_wide(material, labels, recipe)
        for number, (network, _) in enumerate(islice(_epochs(material, labels, recipe), chosen.number), 1):
            convolution = network
            on_refit(number, chosen.number)
    return Trained(
        network=assemble_network(labels, recipe.max_tokens, material.vocabulary, convolution, wide, chosen.shares),
        epochs=epochs,
        chosen=chosen,
    )


def _search(
    train_rows: Rows, valid_rows: Rows, labels: tuple[str, ...], recipe: Recipe, on_epoch: Callable[[Epoch], None]
) -> tuple[Epoch, ...]:
    material = _prepare(train_rows, labels, recipe)
    wide = _fit_wide(material, labels, recipe)
    valid = hash_all(valid_rows.texts, recipe.max_tokens)
    return search_epochs(
        _epochs(material, labels, recipe),
        valid.rows(material.vocabulary.words),
        wide_logits(*wide, _features(valid, material.vocabulary)),
        _targets(valid_rows, labels),
        patience=recipe.patience,
        on_epoch=on_epoch,
    )


def _prepare(rows: Rows, labels: tuple[str, ...], recipe: Recipe) -> _Material:
    texts = hash_all(rows.texts, recipe.max_tokens)
    vocabulary = choose_vocabulary(
        texts,
        max_words=recipe.max_words,
        max_bigrams=recipe.max_bigrams,
        least_bigram_count=recipe.least_bigram_count,
    )
    return _Material(texts, _targets(rows, labels), vocabulary)


def _targets(rows: Rows, labels: tuple[str, ...]) -> NDArray[np.int64]:
    places = {label: place for place, label in enumerate(labels)}
    return np.fromiter((places[label] for label in rows.labels), np.int64, len(rows))


def _features(texts: HashedTexts, vocabulary: Vocabulary) -> WideFeatures:
    return wide_features(texts.hashes, texts.starts, vocabulary.words, vocabulary.bigrams)


def _fit_wide(material: _Material, labels: tuple[str, ...], recipe: Recipe) -> WideWeights:
    features = _features(material.texts, material.vocabulary)
    return fit_wide(features, material.targets, material.vocabulary.columns, len(labels), recipe.wide)


def _epochs(material: _Material, labels: tuple[str, ...], recipe: Recipe) -> Iterator[tuple[TextCNN, float]]:
    words = material.vocabulary.words
    return training_epochs(
        material.texts.rows(words),
        material.targets,
        kept=len(words),
        labels=len(labels),
        recipe=recipe.convolution,
        seed=recipe.seed,
    )


@contextmanager
def _deterministic(threads: int) -> Iterator[None]:
    """Within, equal inputs give equal sums: a fixed number of threads, and only algorithms that keep an order."""
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])
