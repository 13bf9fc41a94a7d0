"""Fit the convolution: one-cycle AdamW with word dropout, epoch by epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headrace.model.network import PADDING_ROW, UNKNOWN_ROW
from headrace.model.textcnn import TextCNN, flatten
from headrace.training.recipe import ConvolutionRecipe

Texts = Sequence[NDArray[np.int64]]


def training_epochs(
    texts: Texts, targets: NDArray[np.int64], *, kept: int, labels: int, recipe: ConvolutionRecipe, seed: int
) -> Iterator[tuple[TextCNN, float]]:
    """Train a TextCNN on texts given as word rows; after each of ``recipe.epochs`` yield it with its mean loss.

    ``targets`` int64[texts]; ``kept`` is V, ``labels`` is C. The network yielded is the one that training goes on with.
    Equal arguments give equal weights on one machine with one number of threads.
    """
    torch.manual_seed(seed)
    randomness = np.random.default_rng(seed)
    network = _fresh(kept, labels, recipe)
    dense = [parameter for name, parameter in network.named_parameters() if not name.startswith("words.")]
    optimizers: tuple[torch.optim.Optimizer, ...] = (
        torch.optim.AdamW(dense, lr=recipe.rate, weight_decay=recipe.weight_decay),
        torch.optim.SparseAdam(list(network.words.parameters()), lr=recipe.word_rate),
    )
    steps = recipe.epochs * -(-len(texts) // recipe.batch)
    schedules = [
        torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps, pct_start=recipe.warm_up, cycle_momentum=False)
        for optimizer, rate in zip(optimizers, (recipe.rate, recipe.word_rate), strict=True)
    ]
    for _ in range(recipe.epochs):
        network.train()
        losses = 0.0
        order = randomness.permutation(len(texts))
        for first in range(0, len(order), recipe.batch):
            chosen = order[first : first + recipe.batch]
            batch = flatten([texts[i] for i in chosen], max(recipe.widths))
            _drop_words(batch.rows, recipe.word_dropout, randomness)
            loss = torch.nn.functional.cross_entropy(network(batch), torch.from_numpy(targets[chosen]))
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            for optimizer, schedule in zip(optimizers, schedules, strict=True):
                optimizer.step()
                schedule.step()
            losses += loss.item() * len(chosen)
        yield network, losses / len(texts)


def convolution_logits(network: TextCNN, texts: Texts, batch: int = 256) -> Tensor:
    """``float32[texts, C]``: the logits without dropout."""
    network.eval()
    widest = max(network.widths)
    with torch.no_grad():
        parts = [network(flatten(texts[i : i + batch], widest)) for i in range(0, len(texts), batch)]
    return torch.cat(parts)


def _fresh(kept: int, labels: int, recipe: ConvolutionRecipe) -> TextCNN:
    network = TextCNN(
        kept,
        labels,
        dimensions=recipe.dimensions,
        filters=recipe.filters,
        widths=recipe.widths,
        dropout=recipe.dropout,
    )
    with torch.no_grad():
        network.words.weight *= recipe.word_scale
    return network


def _drop_words(rows: NDArray[np.int64], share: float, randomness: np.random.Generator) -> None:
    """Make a share of the words unknown, in place: this is what trains the unknown row."""
    rows[(randomness.random(len(rows)) < share) & (rows != PADDING_ROW)] = UNKNOWN_ROW
