"""The oracle: plain PyTorch over the same tables, one text after the other, written to be read.

It cuts words by :func:`headrace.model.words.split_words` and looks them up in dictionaries, so it shares with the fast
backends only what the artifact defines.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from headrace.model.artifact import Artifact
from headrace.model.backends.interface import Answers
from headrace.model.folding import fold
from headrace.model.integers import KEY_SHIFT, inverse_roots, stepped
from headrace.model.network import FIRST_WORD_ROW, PADDING_ROW, UNKNOWN_ROW
from headrace.model.words import bigram_hash, split_words, word_hash


class ReferenceBackend:
    """See :class:`headrace.model.backends.interface.Backend`; ``threads`` is not used."""

    name = "reference"

    def __init__(self, artifact: Artifact, threads: int = 1) -> None:
        del threads
        self.artifact = artifact
        network = artifact.network
        self._row_of_word = {int(key): FIRST_WORD_ROW + place for place, key in enumerate(network.word_keys)}
        self._row_of_bigram = {int(key): place for place, key in enumerate(network.bigram_keys)}
        # [V + 2, taps, F], split into one table for each width.
        tables = torch.from_numpy(fold(network)).to(torch.int64)
        self._tables = torch.split(tables, list(network.widths), dim=1)
        self._filter_bias = torch.from_numpy(network.filter_bias).to(torch.int64)
        self._head = torch.from_numpy(stepped(network.head, network.head_steps)).to(torch.int64)
        self._wide_words = torch.from_numpy(stepped(network.wide_words, network.wide_word_steps)).to(torch.int64)
        wide_bigrams = stepped(network.wide_bigrams, network.wide_bigram_steps)
        self._wide_bigrams = torch.from_numpy(wide_bigrams).to(torch.int64)
        self._bias = torch.from_numpy(network.bias)
        self._inverse_roots = inverse_roots(network.max_tokens)

    def warm(self) -> None:
        """Nothing to prepare."""

    def logits(self, texts: Sequence[bytes]) -> NDArray[np.int64]:
        rows = [self._logits(text.decode("utf-8", "surrogatepass")) for text in texts]
        return torch.stack(rows).numpy() if rows else np.empty((0, len(self.artifact.labels)), np.int64)

    def classify(self, texts: Sequence[bytes], ranking: int = 0) -> Answers:
        logits = self.logits(texts)
        order = np.argsort(-logits, axis=1, kind="stable")
        shown = torch.from_numpy(logits).to(torch.float64) * self.artifact.network.unit
        scores = torch.softmax(shown, dim=1).numpy().astype(np.float32)
        ordered = np.take_along_axis(scores, order, axis=1)
        return Answers(
            labels=order[:, 0].astype(np.int32),
            scores=ordered[:, 0],
            ranking=order[:, :ranking].astype(np.int32),
            ranking_scores=ordered[:, :ranking],
        )

    def _logits(self, text: str) -> torch.Tensor:
        network = self.artifact.network
        words = [word_hash(word) for word in split_words(text, network.max_tokens, network.hashing)]
        rows = [self._row_of_word.get(word >> KEY_SHIFT, UNKNOWN_ROW) for word in words]
        convolution = self._convolution(rows) * network.convolution_factor
        return convolution + self._wide(words, rows) * network.wide_factor + self._bias

    def _convolution(self, rows: list[int]) -> torch.Tensor:
        pooled = []
        for width, table in zip(self.artifact.network.widths, self._tables, strict=True):
            padded = rows + [PADDING_ROW] * (width - len(rows))
            windows = [
                torch.stack([table[padded[first + tap], tap] for tap in range(width)]).sum(dim=0)
                for first in range(len(padded) - width + 1)
            ]
            pooled.append(torch.stack(windows).amax(dim=0))
        features = torch.clamp(torch.cat(pooled) + self._filter_bias, min=0)
        return self._head @ features

    def _wide(self, words: list[int], rows: list[int]) -> torch.Tensor:
        keys = [bigram_hash(first, second) >> KEY_SHIFT for first, second in pairwise(words)]
        bigrams = [self._row_of_bigram[key] for key in keys if key in self._row_of_bigram]
        sums = self._wide_words[rows].sum(dim=0) + self._wide_bigrams[bigrams].sum(dim=0)
        return sums * int(self._inverse_roots[len(rows)])
