"""Answers on CPUs: one compiled call a batch, from UTF-8 bytes to labels, without the GIL and without torch.

The tables lie as the kernel reads them: for each word one contiguous row of taps x F bytes, F padded to a whole number
of SIMD registers. A text's own rows are all that is read of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from headrace.model import characters
from headrace.model.artifact import Artifact
from headrace.model.backends.interface import Answers
from headrace.model.backends.kernels import WIDE_LANES, answer_texts
from headrace.model.backends.padding import FILTER_LANES, by_width, padded, shares
from headrace.model.folding import fold
from headrace.model.hashing import join_texts
from headrace.model.integers import inverse_roots, stepped
from headrace.model.lookup import build_lookup
from headrace.model.network import FIRST_WORD_ROW
from headrace.model.words import RULES


class CpuBackend:
    """See :class:`headrace.model.backends.interface.Backend`."""

    name = "cpu"

    def __init__(self, artifact: Artifact, threads: int = 1) -> None:
        self.artifact = artifact
        network = artifact.network
        filters = network.filters_a_width
        tables = padded(fold(network), 2, FILTER_LANES)
        wide_bigrams = stepped(network.wide_bigrams, network.wide_bigram_steps)
        self._pool = ThreadPoolExecutor(threads, "headrace-cpu") if threads > 1 else None
        self._threads = threads
        # In the order of the kernel's parameters. None is the artifact's own array: those of a loaded one can't be
        # written, for which numba would compile once more.
        self._constants = (
            characters.table(RULES[network.hashing]),
            network.max_tokens,
            *build_lookup(network.word_keys, FIRST_WORD_ROW),
            *build_lookup(network.bigram_keys, 1),
            np.array(network.widths, np.int64),
            tables.reshape(-1),
            by_width(network.filter_bias, len(network.widths), filters),
            by_width(stepped(network.head, network.head_steps), len(network.widths), filters),
            padded(stepped(network.wide_words, network.wide_word_steps), 1, WIDE_LANES),
            # Row 0 is what a bigram without a weight adds.
            padded(np.concatenate([np.zeros((1, len(network.labels)), np.int16), wide_bigrams]), 1, WIDE_LANES),
            network.bias.copy(),
            inverse_roots(network.max_tokens),
            network.convolution_factor,
            network.wide_factor,
            network.unit,
        )

    def warm(self) -> None:
        """Load the kernels from numba's cache, or compile them."""
        self.classify([b"warm"])

    def logits(self, texts: Sequence[bytes]) -> NDArray[np.int64]:
        """``int64[n, C]``."""
        logits, _ = self._answer(texts, 0)
        return logits

    def classify(self, texts: Sequence[bytes], ranking: int = 0) -> Answers:
        """Labels, softmax scores and ranking."""
        _, answers = self._answer(texts, min(ranking, len(self.artifact.labels)))
        return answers

    def _answer(self, texts: Sequence[bytes], ranking: int) -> tuple[NDArray[np.int64], Answers]:
        count, labels = len(texts), len(self.artifact.labels)
        data, offsets = join_texts(texts, self.artifact.network.hashing)
        logits = np.empty((count, labels), np.int64)
        answers = Answers(
            labels=np.empty(count, np.int32),
            scores=np.empty(count, np.float32),
            ranking=np.empty((count, ranking), np.int32),
            ranking_scores=np.empty((count, ranking), np.float32),
        )
        outputs = (logits, answers.labels, answers.scores, answers.ranking, answers.ranking_scores)

        def run(first: int, end: int) -> None:
            answer_texts(data, offsets, first, end, *self._constants, *outputs)

        if self._pool is None or count < self._threads:
            run(0, count)
        else:
            bounds = shares(offsets, self._threads)
            list(self._pool.map(run, bounds[:-1], bounds[1:]))
        return logits, answers
