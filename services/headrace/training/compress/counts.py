"""What pruning has to know of the training rows: how often words and bigrams occur, and how filters answer."""

from __future__ import annotations

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from headrace.model.network import FIRST_WORD_ROW, Network, pair_hashes, rows_of, word_rows
from headrace.model.textcnn import flatten
from headrace.model.wide import adjacent
from headrace.training.compress.module import module_of
from headrace.training.ranks.exchange import Exchange
from headrace.training.vocabulary import HashedTexts

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
