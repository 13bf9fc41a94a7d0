"""What the cuda backend keeps of an artifact in the GPU's memory.

The CPU's part of the cuda backend, compiled: texts to the rows that the GPU reads, without the GIL.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from headrace.model.backends.kernels import read_text
from headrace.model.backends.padding import FILTER_LANES, by_width, padded
from headrace.model.compiling import kernel
from headrace.model.folding import fold
from headrace.model.integers import QuantizedNetwork, inverse_roots, stepped


@dataclass(frozen=True, eq=False)
class Tables:
    """The artifact on the GPU, as :mod:`headrace.model.integers` names it; F is padded to a multiple of 32.

    ``tables`` int8[V + 2, taps, F], ``filter_bias`` int32[widths x F], ``head`` int16[C, widths x F], ``wide_words``
    int16[V + 2, C], ``wide_bigrams`` int16[B + 1, C] whose row 0 is zero, ``bias`` int64[C], ``roots``
    int64[max_tokens + 1], ``factors`` int64[2], ``unit`` float64[1].
    """

    device: torch.device
    widths: tuple[int, ...]
    max_tokens: int
    tables: torch.Tensor
    filter_bias: torch.Tensor
    head: torch.Tensor
    wide_words: torch.Tensor
    wide_bigrams: torch.Tensor
    bias: torch.Tensor
    roots: torch.Tensor
    factors: torch.Tensor
    unit: torch.Tensor

    @property
    def labels(self) -> int:
        """C."""
        return len(self.bias)


def upload(network: QuantizedNetwork, device: torch.device) -> Tables:
    """Fold the tables and copy everything to ``device``. Raises BoundsError and FoldingError."""

    def up(array: NDArray[np.generic]) -> torch.Tensor:
        # A copy, because a loaded artifact's arrays can't be written, which torch warns of.
        return torch.from_numpy(array.copy()).to(device)

    widths, filters = len(network.widths), network.filters_a_width
    bigrams = stepped(network.wide_bigrams, network.wide_bigram_steps)
    tables = Tables(
        device=device,
        widths=network.widths,
        max_tokens=network.max_tokens,
        tables=up(padded(fold(network), 2, FILTER_LANES)),
        filter_bias=up(by_width(network.filter_bias, widths, filters)),
        head=up(by_width(stepped(network.head, network.head_steps), widths, filters)),
        wide_words=up(stepped(network.wide_words, network.wide_word_steps)),
        # Row 0 is that of no bigram.
        wide_bigrams=up(np.concatenate([np.zeros((1, len(network.labels)), np.int16), bigrams])),
        bias=up(network.bias),
        roots=up(inverse_roots(network.max_tokens)),
        factors=up(np.array([network.convolution_factor, network.wide_factor], np.int64)),
        unit=up(np.array([network.unit], np.float64)),
    )
    if device.type == "cuda":
        # The lanes' streams don't wait for the one that these copies are on.
        torch.cuda.synchronize(device)
    return tables


@kernel
def fill_rows(  # type: ignore[no-untyped-def]  # noqa: PLR0917
    data,
    offsets,
    first,
    end,
    characters,
    max_tokens,
    word_slots,
    word_shift,
    bigram_slots,
    bigram_shift,
    at,
    counts,
    rows,
):
    """Lay out texts from ``first`` on, until ``end``, ``counts`` or ``rows`` is reached; returns how many.

    Text t of those has ``counts[t]`` words; ``rows[at[t]:at[t + 1]]`` are their rows and then those of its kept
    bigrams. What is left of ``at`` and ``counts`` is filled up with texts of no words. ``rows`` has room for at least
    one text, which is 2 x max_tokens.
    """
    hashes = np.empty(max_tokens, np.uint64)
    pairs = np.empty(max_tokens, np.uint64)
    bigram_rows = np.empty(max_tokens, np.uint64)
    no_tables = np.empty(0, np.int8)
    place = np.int64(0)
    taken = 0
    at[0] = 0
    while first + taken < end and taken < len(counts) and place + 2 * max_tokens <= len(rows):
        text = first + taken
        count, kept = read_text(
            data,
            offsets[text],
            offsets[text + 1],
            characters,
            word_slots,
            word_shift,
            bigram_slots,
            bigram_shift,
            no_tables,
            np.uint64(0),
            hashes,
            pairs,
            rows[place:],
            bigram_rows,
        )
        place += count
        rows[place : place + kept] = bigram_rows[:kept]
        place += kept
        counts[taken] = count
        taken += 1
        at[taken] = place
    at[taken:] = place
    counts[taken:] = 0
    return taken
