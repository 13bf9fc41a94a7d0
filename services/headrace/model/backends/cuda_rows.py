"""The CPU's part of the cuda backend, compiled: texts to the rows that the GPU reads, without the GIL."""

from __future__ import annotations

import numpy as np

from headrace.model.backends.prefetching import prefetch
from headrace.model.compiling import kernel
from headrace.model.hashing import bigram, hash_text
from headrace.model.lookup import find, home_slot


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
    place = np.int64(0)
    taken = 0
    at[0] = 0
    while first + taken < end and taken < len(counts) and place + 2 * max_tokens <= len(rows):
        text = first + taken
        count = hash_text(data, offsets[text], offsets[text + 1], characters, hashes, 0, max_tokens)
        for p in range(count):
            prefetch(word_slots, home_slot(hashes[p], word_shift))
        for p in range(count - 1):
            pairs[p] = bigram(hashes[p], hashes[p + 1])
            prefetch(bigram_slots, home_slot(pairs[p], bigram_shift))
        for p in range(count):
            rows[place + p] = max(find(word_slots, word_shift, hashes[p]), np.uint64(1))
        place += count
        for p in range(count - 1):
            # Written always and counted when found: whether a bigram is kept can't be foreseen.
            row = find(bigram_slots, bigram_shift, pairs[p])
            rows[place] = row
            place += np.int64(row != np.uint64(0))
        counts[taken] = count
        taken += 1
        at[taken] = place
    at[taken:] = place
    counts[taken:] = 0
    return taken
