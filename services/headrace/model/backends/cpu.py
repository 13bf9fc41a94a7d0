"""Answers on CPUs: one compiled call a batch, from UTF-8 bytes to labels, without the GIL and without torch.

All arithmetic is that of :mod:`headrace.model.integers`. One text is answered after the other: words, rows, pooling,
head, wide part, ranking. Indexes are unsigned where they are hot, because numba tests a signed one for being negative;
inner loops run over filters or labels, contiguous and without branches, so that LLVM turns them into SIMD.

The tables lie as the kernel reads them: for each word one row of whole cache lines, its taps and behind them its
weights of the wide part. Of the tables only the rows of a text's own words are read. The windows' sums are vectors of
:mod:`headrace.model.instructions`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from headrace.model import characters
from headrace.model.artifact import Artifact
from headrace.model.backends.interface import Answers
from headrace.model.compiling import kernel
from headrace.model.folding import fold
from headrace.model.instructions import CACHE_LINE, LANES, add, largest, load, lowest, prefetch, store
from headrace.model.integers import QuantizedNetwork, inverse_roots, stepped
from headrace.model.lookup import build_lookup, find, home_slot
from headrace.model.network import FIRST_WORD_ROW
from headrace.model.words import RULES, bigram, hash_text, join_texts

_Kind = TypeVar("_Kind", bound=np.generic)


def padded(array: NDArray[_Kind], axis: int, multiple: int) -> NDArray[_Kind]:
    """``array`` with zeros appended along ``axis`` up to a multiple of ``multiple``, contiguous."""
    widths = [(0, 0)] * array.ndim
    widths[axis] = (0, -array.shape[axis] % multiple)
    return np.ascontiguousarray(np.pad(array, widths))


def split_evenly(offsets: NDArray[np.int64], parts: int) -> list[int]:
    """``parts`` + 1 places that divide texts of these offsets into parts of like many bytes: a long text costs more."""
    places = np.searchsorted(offsets, np.linspace(0, offsets[-1], parts + 1)[1:-1])
    return [0, *map(int, places), len(offsets) - 1]


# The wide part's 32-bit sums in an AVX2 register; C is padded to a multiple there.
WIDE_LANES = 8

_LINE, _LANES, _WIDE_LANES, _ONE = (np.uint64(number) for number in (CACHE_LINE, LANES, WIDE_LANES, 1))


@kernel
def _pool_two(tables, places, first, step, windows):  # type: ignore[no-untyped-def]
    """For LANES filters the largest sum over the windows of two words, whose rows begin at ``places``; ``first`` is
    where in a row the filters' first tap lies, ``step`` how far the next. The usual widths are written out.
    """
    second = first + step
    found = lowest()
    for p in range(windows):
        found = largest(found, add(load(tables, places[p] + first), load(tables, places[p + 1] + second)))
    return found


@kernel
def _pool_three(tables, places, first, step, windows):  # type: ignore[no-untyped-def]
    second, third = first + step, first + step + step
    found = lowest()
    for p in range(windows):
        total = add(load(tables, places[p] + first), load(tables, places[p + 1] + second))
        found = largest(found, add(total, load(tables, places[p + 2] + third)))
    return found


@kernel
def _pool_four(tables, places, first, step, windows):  # type: ignore[no-untyped-def]
    second = first + step
    third = second + step
    fourth = third + step
    found = lowest()
    for p in range(windows):
        total = add(load(tables, places[p] + first), load(tables, places[p + 1] + second))
        other = add(load(tables, places[p + 2] + third), load(tables, places[p + 3] + fourth))
        found = largest(found, add(total, other))
    return found


@kernel
def _pool_any(tables, places, first, step, windows, width):  # type: ignore[no-untyped-def]
    found = lowest()
    for p in range(windows):
        total = load(tables, places[p] + first)
        for tap in range(_ONE, width):
            total = add(total, load(tables, places[p + tap] + first + tap * step))
        found = largest(found, total)
    return found


@kernel
def _pool(tables, widths, filters, stride, rows, count, places, pooled):  # type: ignore[no-untyped-def]
    """The largest sum over the windows of each width, into ``pooled`` int16[widths x F + LANES].

    ``rows`` uint64: the words' rows, then zeros (the padding row) up to the widest window; ``places`` has room for as
    many. The sums and the maximum of LANES filters stay in registers. Of F filters the last vector reaches into the
    next tap: what it finds there, the next width's first vector overwrites.
    """
    for p in range(max(count, widths.max())):
        places[p] = rows[p] * stride
    first = np.uint64(0)
    for w in range(len(widths)):
        width = np.uint64(widths[w])
        windows = np.uint64(max(count, widths[w]) - widths[w] + 1)
        for block in range(np.uint64(0), filters, _LANES):
            if width == 2:
                found = _pool_two(tables, places, first + block, filters, windows)
            elif width == 3:
                found = _pool_three(tables, places, first + block, filters, windows)
            elif width == 4:
                found = _pool_four(tables, places, first + block, filters, windows)
            else:
                found = _pool_any(tables, places, first + block, filters, windows, width)
            store(pooled, np.uint64(w) * filters + block, found)
        first += width * filters


def rows_in_lines(tables: NDArray[np.int8], wide: NDArray[np.int16]) -> tuple[NDArray[np.int8], NDArray[np.int16], int]:
    """``(rows int8[...], weights int16[...], length)``: for each word the ``length`` bytes that an answer reads of it.

    They are its taps of ``tables`` int8[V + 2, taps, F] and, from the next even place on, its weights of ``wide``
    int16[V + 2, C], up to whole cache lines. Behind the last row is room for a vector. ``weights`` is the same memory
    from the first word's weights on.
    """
    count, taps = len(tables), tables[0].size
    first = taps + taps % 2
    length = -(-(first + 2 * wide.shape[1]) // CACHE_LINE) * CACHE_LINE
    room = np.zeros(count * length + LANES + CACHE_LINE, np.int8)
    flat = room[-room.ctypes.data % CACHE_LINE :][: count * length + LANES]
    rows = flat[: count * length].reshape(count, length)
    rows[:, :taps] = tables.reshape(count, taps)
    rows[:, first : first + 2 * wide.shape[1]] = wide.view(np.int8)
    return flat, flat[first:].view(np.int16), length


@kernel
def _convolve(pooled, filter_bias, head, features, label_sums):  # type: ignore[no-untyped-def]
    """``label_sums`` int32[C] = head times the rectified features."""
    for j in range(len(features)):
        features[j] = np.int16(max(np.int32(pooled[j]) + filter_bias[j], np.int32(0)))
    for c in range(head.shape[0]):
        total = np.int32(0)
        for j in range(len(features)):
            total = np.int32(total + np.int32(np.int32(head[c, j]) * np.int32(features[j])))
        label_sums[c] = total


@kernel
def _prefetch_rows(table, length, rows):  # type: ignore[no-untyped-def]
    """Prefetch ``rows`` of ``length`` items of ``table`` int16."""
    for row in rows:
        for item in range(np.uint64(0), length, _LINE // np.uint64(2)):
            prefetch(table, row * length + item)


@kernel
def _widen(weights, length, rows, sums):  # type: ignore[no-untyped-def]
    """Add rows of ``weights`` int16 to ``sums`` int32[C]; C is a multiple of WIDE_LANES. Rows begin ``length`` items
    apart.
    """
    for row in rows:
        start = row * length
        for block in range(np.uint64(0), np.uint64(len(sums)), _WIDE_LANES):
            for lane in range(_WIDE_LANES):
                c = block + lane
                sums[c] = np.int32(sums[c] + np.int32(weights[start + c]))


@kernel
def _rank(logits, unit, ranking, ranking_scores):  # type: ignore[no-untyped-def]
    """Label and score of the largest logit, the lowest index on a tie; fills the ranking's row."""
    best = 0
    for c in range(1, len(logits)):
        if logits[c] > logits[best]:
            best = c
    total = 0.0
    for c in range(len(logits)):
        total += math.exp((logits[c] - logits[best]) * unit)
    for place in range(len(ranking)):
        chosen = -1
        for c in range(len(logits)):
            taken = False
            for earlier in range(place):
                taken = taken or ranking[earlier] == c
            if not taken and (chosen < 0 or logits[c] > logits[chosen]):
                chosen = c
        ranking[place] = chosen
        ranking_scores[place] = math.exp((logits[chosen] - logits[best]) * unit) / total
    return best, 1.0 / total


def words_of(network: QuantizedNetwork) -> tuple[Any, ...]:
    """What :func:`read_text` looks words up in: the table of characters, slots and shift of words, and of bigrams."""
    return (
        characters.table(RULES[network.hashing]),
        *build_lookup(network.word_keys, FIRST_WORD_ROW),
        *build_lookup(network.bigram_keys, 1),
    )


@kernel
def read_text(data, start, end, words, tables, stride, hashes, pairs, rows, bigram_rows):  # type: ignore[no-untyped-def]  # noqa: PLR0917
    """Hash a text and look its words and bigrams up in ``words`` (:func:`words_of`); returns ``(words, kept bigrams)``.

    Memory that the next steps read, here and in answering, is prefetched as soon as its place is known: the tables are
    larger than the caches, and no processor could foresee the order of their rows. A ``stride`` of 0 prefetches nothing
    of ``tables``, for a caller that does not read them here.
    """
    classes, word_slots, word_shift, bigram_slots, bigram_shift = words
    count = hash_text(data, start, end, classes, hashes, 0, len(hashes))
    for p in range(count):
        prefetch(word_slots, home_slot(word_slots, hashes[p], word_shift))
    for p in range(count - 1):
        pairs[p] = bigram(hashes[p], hashes[p + 1])
        prefetch(bigram_slots, home_slot(bigram_slots, pairs[p], bigram_shift))
    for p in range(count):
        row = max(find(word_slots, word_shift, hashes[p]), np.uint64(1))
        rows[p] = row
        for line in range(np.uint64(0), stride, _LINE):
            prefetch(tables, row * stride + line)
    kept = 0
    for p in range(count - 1):
        # Written always and counted when found: whether a bigram is kept can't be foreseen either.
        row = find(bigram_slots, bigram_shift, pairs[p])
        bigram_rows[kept] = row
        kept += row != np.uint64(0)
    return count, kept


@kernel
def answer_texts(data, offsets, first, end, max_tokens, words, network, answers):  # type: ignore[no-untyped-def]
    """Answer texts ``first`` to ``end`` (excluded) of a batch into the arrays of ``answers``.

    ``network`` and ``answers`` are what :class:`CpuBackend` makes. Scratch is made once a call, so calls from several
    threads share nothing that is written.
    """
    widths, tables, stride, filter_bias, head, wide_words, wide_bigrams, bias, roots, factor, wide_factor, unit = (
        network
    )
    logits, labels, scores, ranking, ranking_scores = answers
    filters = np.uint64(len(filter_bias) // len(widths))
    wide_sums = np.empty(-(-len(bias) // WIDE_LANES) * WIDE_LANES, np.int32)
    # In items of 16 bits.
    word_length, bigram_length = stride >> _ONE, np.uint64(len(wide_sums))
    hashes = np.empty(max_tokens, np.uint64)
    pairs = np.empty(max_tokens, np.uint64)
    rows = np.empty(max(max_tokens, widths.max()), np.uint64)
    bigram_rows = np.empty(max_tokens, np.uint64)
    pooled = np.empty(len(filter_bias) + LANES, np.int16)
    features = np.empty(len(filter_bias), np.int16)
    places = np.empty(len(rows), np.uint64)
    label_sums = np.empty(len(bias), np.int32)
    for text in range(first, end):
        count, kept = read_text(
            data, offsets[text], offsets[text + 1], words, tables, stride, hashes, pairs, rows, bigram_rows
        )
        _prefetch_rows(wide_bigrams, bigram_length, bigram_rows[:kept])
        rows[count : widths.max()] = 0
        _pool(tables, widths, filters, stride, rows, count, places, pooled)
        _convolve(pooled, filter_bias, head, features, label_sums)
        wide_sums[:] = 0
        _widen(wide_words, word_length, rows[:count], wide_sums)
        _widen(wide_bigrams, bigram_length, bigram_rows[:kept], wide_sums)
        for c in range(len(bias)):
            wide = np.int64(wide_sums[c]) * roots[count] * wide_factor
            logits[text, c] = np.int64(label_sums[c]) * factor + wide + bias[c]
        labels[text], scores[text] = _rank(logits[text], unit, ranking[text], ranking_scores[text])


class CpuBackend:
    """See :class:`headrace.model.backends.interface.Backend`."""

    name = "cpu"

    def __init__(self, artifact: Artifact, threads: int = 1) -> None:
        self.artifact = artifact
        network = artifact.network
        wide_words = padded(stepped(network.wide_words, network.wide_word_steps), 1, WIDE_LANES)
        rows, weights, length = rows_in_lines(fold(network), wide_words)
        # Row 0 is what a bigram without a weight adds.
        of_none = np.zeros((1, len(network.labels)), np.int16)
        of_bigrams = stepped(network.wide_bigrams, network.wide_bigram_steps)
        wide_bigrams = padded(np.concatenate([of_none, of_bigrams]), 1, WIDE_LANES)
        self._pool = ThreadPoolExecutor(threads, "headrace-cpu") if threads > 1 else None
        self._threads = threads
        self._words = words_of(network)
        # Copies: a loaded artifact's own arrays can't be written, and numba would compile once more for those.
        self._network = (
            np.array(network.widths, np.int64),
            rows,
            np.uint64(length),
            network.filter_bias.copy(),
            stepped(network.head, network.head_steps),
            weights,
            wide_bigrams.reshape(-1),
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
        logits, _ = self._answer(texts, 0)
        return logits

    def classify(self, texts: Sequence[bytes], ranking: int = 0) -> Answers:
        _, answers = self._answer(texts, min(ranking, len(self.artifact.labels)))
        return answers

    def _answer(self, texts: Sequence[bytes], ranking: int) -> tuple[NDArray[np.int64], Answers]:
        count, labels, max_tokens = len(texts), len(self.artifact.labels), self.artifact.network.max_tokens
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
            answer_texts(data, offsets, first, end, max_tokens, self._words, self._network, outputs)

        if self._pool is None or count < self._threads:
            run(0, count)
        else:
            bounds = split_evenly(offsets, self._threads)
            list(self._pool.map(run, bounds[:-1], bounds[1:]))
        return logits, answers
