"""The CPU's part of the cuda backend, compiled: texts to the rows that the GPU reads, without the GIL."""

from __future__ import annotations

import numpy as np

from headrace.model.backends.kernels import read_text
from headrace.model.compiling import kernel


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
