"""Kim's convolution over words in PyTorch, for training: embedding, several widths, maximum over time, linear.

A batch is flat. The words of all texts lie end to end in one array and each text says where it starts, so there is no
batch padding that could change an answer and none that costs time.

Source: Kim, Convolutional Neural Networks for Sentence Classification, EMNLP 2014.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from headrace.model.compiling import kernel
from headrace.model.network import FIRST_WORD_ROW, PADDING_ROW


class WordParts(NamedTuple):
    """What words have in common: row r of ``words`` has the parts ``parts[starts[r]:starts[r + 1]]``.

    ``parts`` int64[entries], each below ``different``; ``starts`` int64[V + 3].
    """

    parts: NDArray[np.int64]
    starts: NDArray[np.int64]
    different: int


def no_parts(kept: int) -> WordParts:
    """Of ``kept`` words that have nothing in common."""
    return WordParts(np.empty(0, np.int64), np.zeros(kept + FIRST_WORD_ROW + 1, np.int64), 0)


class FlatBatch(NamedTuple):
    """Texts end to end: ``rows`` of the words int64[words], ``starts`` int64[texts], ``lengths`` int64[texts].

    Text i is ``rows[starts[i]:starts[i] + lengths[i]]``; between texts lie padding rows where a text is shorter than
    the widest window.
    """

    rows: NDArray[np.int64]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]


def flatten(texts: Sequence[NDArray[np.int64]], widest: int) -> FlatBatch:
    """Lay the word rows of ``texts`` end to end, each with at least ``widest`` rows of room."""
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    ends = np.cumsum(np.maximum(lengths, widest))
    starts = ends - np.maximum(lengths, widest)
    rows = np.full(int(ends[-1]) if len(texts) else 0, PADDING_ROW, np.int64)
    for text, start in zip(texts, starts, strict=True):
        rows[start : start + len(text)] = text
    return FlatBatch(rows, starts, lengths)


@kernel
def _pool(products, places, starts, windows, pooled, winners):  # type: ignore[no-untyped-def]
    # A row at a time, so that the inner loops run over neighbouring filters and are compiled to vector instructions.
    width, count = products.shape[1], products.shape[2]
    sums = np.empty(count, np.float32)
    for text in range(len(starts)):
        for window in range(starts[text], starts[text] + windows[text]):
            for filter_ in range(count):
                sums[filter_] = products[places[window], 0, filter_]
            for tap in range(1, width):
                for filter_ in range(count):
                    sums[filter_] += products[places[window + tap], tap, filter_]
            if window == starts[text]:
                pooled[text] = sums
                winners[text] = window
                continue
            for filter_ in range(count):
                better = sums[filter_] > pooled[text, filter_]
                winners[text, filter_] = window if better else winners[text, filter_]
                pooled[text, filter_] = sums[filter_] if better else pooled[text, filter_]


@kernel
def _pool_gradient(upstream, winners, places, words, filters, d_words, d_filters):  # type: ignore[no-untyped-def]
    # Each filter saw one window of each text, and after ReLU and dropout most of the upstream gradient is zero.
    count, width, dimensions = filters.shape
    for text in range(len(upstream)):
        for filter_ in range(count):
            slope = upstream[text, filter_]
            if slope == 0.0:
                continue
            for tap in range(width):
                word = places[winners[text, filter_] + tap]
                for axis in range(dimensions):
                    d_filters[filter_, tap, axis] += slope * words[word, axis]
                    d_words[word, axis] += slope * filters[filter_, tap, axis]


class _MaxOverTime(torch.autograd.Function):
    """Convolve and keep each filter's best window: (different words [U, D], filters [F, k, D]) -> [texts, F].

    Folded as in answering: each different word of the batch is multiplied with each tap once, and a window is a sum of
    k products, so a frequent word costs one matrix row however often it occurs. The way back is written by hand because
    only the winning windows have a gradient; autograd's own would cost twice the way forward.
    """

    @staticmethod
    def forward(
        ctx: Any,
        words: Tensor,
        filters: Tensor,
        places: NDArray[np.int64],
        starts: NDArray[np.int64],
        windows: NDArray[np.int64],
    ) -> Tensor:
        count, width, dimensions = filters.shape
        products = words @ filters.permute(2, 1, 0).reshape(dimensions, width * count)
        pooled = np.empty((len(starts), count), np.float32)
        winners = np.empty((len(starts), count), np.int64)
        _pool(products.view(-1, width, count).numpy(), places, starts, windows, pooled, winners)
        ctx.save_for_backward(words, filters)
        ctx.places, ctx.winners = places, winners
        return torch.from_numpy(pooled)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        words, filters = ctx.saved_tensors
        d_words, d_filters = torch.zeros_like(words), torch.zeros_like(filters)
        _pool_gradient(
            upstream[0].contiguous().numpy(),
            ctx.winners,
            ctx.places,
            words.numpy(),
            filters.numpy(),
            d_words.numpy(),
            d_filters.numpy(),
        )
        return d_words, d_filters, None, None, None


class TextCNN(nn.Module):
    """``forward(FlatBatch) -> float32[texts, C]`` logits. V kept words, D dimensions, F filters a width, C labels.

    With ``parts`` a word is its own vector and those of its n parts, each times 1 / sqrt(n). That is for training,
    where a rare word learns from others that are spelled alike; :meth:`word_vectors` gives the sums, and a network of
    plain words answers alike. Source: Bojanowski et al., Enriching Word Vectors with Subword Information, TACL 2017.
    """

    def __init__(
        self,
        kept: int,
        labels: int,
        *,
        dimensions: int,
        filters: int,
        widths: Sequence[int],
        dropout: float,
        parts: WordParts | None = None,
    ) -> None:
        super().__init__()
        self.widths = tuple(widths)
        self.parts = parts or no_parts(kept)
        # Words, then parts. Sparse gradients: a step touches the rows of its own batch only, however many are kept.
        self.words = nn.Embedding(
            kept + FIRST_WORD_ROW + self.parts.different, dimensions, padding_idx=PADDING_ROW, sparse=True
        )
        self.filters = nn.ParameterList(
            nn.Parameter(torch.randn(filters, width, dimensions) / (width * dimensions) ** 0.5) for width in self.widths
        )
        self.filter_bias = nn.Parameter(torch.zeros(len(self.widths) * filters))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(len(self.widths) * filters, labels)

    def forward(self, batch: FlatBatch) -> Tensor:
        rows, places = np.unique(batch.rows, return_inverse=True)
        words = self._vectors(rows)
        pooled = [
            _MaxOverTime.apply(words, filters, places, batch.starts, np.maximum(batch.lengths, width) - width + 1)
            for width, filters in zip(self.widths, self.filters, strict=True)
        ]
        features = torch.relu(torch.cat(pooled, dim=1) + self.filter_bias)
        logits: Tensor = self.head(self.dropout(features))
        return logits

    def word_vectors(self) -> Tensor:
        """``float32[V + 2, D]``: the rows of all words with their parts added, without gradient."""
        with torch.no_grad():
            return self._vectors(np.arange(len(self.parts.starts) - 1))

    def table_rows(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The different rows of the table that the words at ``rows`` are made of."""
        return np.unique(np.concatenate([rows, self._entries(np.unique(rows))[0]]))

    def _entries(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The table's rows of the parts of the words at ``rows``, end to end, and how many each word has."""
        lengths = self.parts.starts[rows + 1] - self.parts.starts[rows]
        ends = np.cumsum(lengths)
        places = np.arange(ends[-1] if len(rows) else 0) + np.repeat(self.parts.starts[rows] - ends + lengths, lengths)
        return self.parts.parts[places] + len(self.parts.starts) - 1, lengths

    def _vectors(self, rows: NDArray[np.int64]) -> Tensor:
        entries, lengths = self._entries(rows)
        if not len(entries):
            vectors: Tensor = self.words(torch.from_numpy(rows))
            return vectors
        # Each different part once, and summed as dense rows: its gradient is then as long as the parts are many.
        parts, places = np.unique(entries, return_inverse=True)
        read = self.words(torch.from_numpy(np.concatenate([rows, parts])))
        scales = (1 / np.sqrt(np.maximum(lengths, 1))).astype(np.float32)
        sums = nn.functional.embedding_bag(
            torch.from_numpy(places),
            read[len(rows) :],
            torch.from_numpy(np.cumsum(lengths) - lengths),
            mode="sum",
        )
        whole: Tensor = read[: len(rows)] + sums * torch.from_numpy(scales)[:, None]
        return whole
