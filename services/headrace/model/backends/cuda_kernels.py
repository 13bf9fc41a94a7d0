"""The Triton kernels of the cuda backend; all arithmetic is that of :mod:`headrace.model.integers`.

A program is one text and one block of filters or labels. Sums are in int32, which
:func:`headrace.model.integers.check_bounds` proves wide enough, and logits in int64, so the order in which a GPU adds
changes nothing. Block sizes are powers of two, as
Triton wants them; ``BLOCK`` divides the filters of a width, which are padded to a multiple of 32.

With TRITON_INTERPRET=1 in the environment when triton is first imported, the same code runs on CPU tensors: slowly, for
tests.
"""

from __future__ import annotations

import triton
import triton.language as tl

# Below any sum of int8 entries that a window can have, and below any logit.
_NO_SUM = tl.constexpr(-(2**15))
_NO_LOGIT = tl.constexpr(-(2**62))


@triton.jit
def pool(  # type: ignore[no-untyped-def]  # noqa: PLR0917
    at,
    counts,
    rows,
    tables,
    filter_bias,
    features,
    WIDTHS: tl.constexpr,  # noqa: N803 - Triton's custom for what is compiled in
    FIRST_TAPS: tl.constexpr,  # noqa: N803
    TAPS: tl.constexpr,  # noqa: N803
    FILTERS: tl.constexpr,  # noqa: N803
    BLOCK: tl.constexpr,  # noqa: N803
    WINDOWS: tl.constexpr,  # noqa: N803
):
    """Gather, sum, maximum and rectifier of all widths, for text ``program_id(0)``: ``features`` int16[n, widths x F].

    Text t has ``counts[t]`` words, whose rows of ``tables`` int8[V + 2, TAPS, F] are ``rows[at[t]:]``. A place behind
    the last word reads row 0, the padding, which is zero.
    """
    text = tl.program_id(0)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    first = tl.load(at + text)
    count = tl.load(counts + text)
    for w in tl.static_range(len(WIDTHS)):
        windows = tl.maximum(count, WIDTHS[w]) - WIDTHS[w] + 1
        largest = tl.full([BLOCK], _NO_SUM, tl.int32)
        for begin in range(0, windows, WINDOWS):
            places = begin + tl.arange(0, WINDOWS)
            sums = tl.zeros([WINDOWS, BLOCK], tl.int32)
            for tap in tl.static_range(WIDTHS[w]):
                row = tl.load(rows + first + places + tap, mask=places + tap < count, other=0)
                # In 64 bits: a table may have more than 2^31 entries.
                entries = (row.to(tl.int64) * TAPS + (FIRST_TAPS[w] + tap)) * FILTERS
                sums += tl.load(tables + entries[:, None] + columns[None, :]).to(tl.int32)
            sums = tl.where((places < windows)[:, None], sums, _NO_SUM)
            largest = tl.maximum(largest, tl.max(sums, axis=0))
        feature = tl.maximum(largest + tl.load(filter_bias + w * FILTERS + columns), 0)
        tl.store(features + (text * len(WIDTHS) + w) * FILTERS + columns, feature.to(tl.int16))


@triton.jit
def _widened(  # type: ignore[no-untyped-def]
    weights,
    rows,
    count,
    labels,
    LABELS: tl.constexpr,  # noqa: N803
    LABEL_BLOCK: tl.constexpr,  # noqa: N803
    ROWS: tl.constexpr,  # noqa: N803
):
    """The sum int32[LABEL_BLOCK] of the ``count`` rows of ``weights`` that ``rows`` names, for a block of labels."""
    real = labels < LABELS
    sums = tl.zeros([LABEL_BLOCK], tl.int32)
    for begin in range(0, count, ROWS):
        places = begin + tl.arange(0, ROWS)
        row = tl.load(rows + places, mask=places < count, other=0).to(tl.int64)
        mask = (places < count)[:, None] & real[None, :]
        found = tl.load(weights + row[:, None] * LABELS + labels[None, :], mask=mask, other=0)
        sums += tl.sum(found.to(tl.int32), axis=0)
    return sums


@triton.jit
def add_up(  # type: ignore[no-untyped-def]  # noqa: PLR0917
    at,
    counts,
    rows,
    features,
    head,
    wide_words,
    wide_bigrams,
    bias,
    roots,
    factors,
    logits,
    LABELS: tl.constexpr,  # noqa: N803
    FEATURES: tl.constexpr,  # noqa: N803
    BLOCK: tl.constexpr,  # noqa: N803
    LABEL_BLOCK: tl.constexpr,  # noqa: N803
    ROWS: tl.constexpr,  # noqa: N803
):
    """Head and wide part of text ``program_id(0)`` for one block of labels, into ``logits`` int64[n, C].

    Behind a text's words in ``rows`` are the rows of its kept bigrams, up to ``at[t + 1]``. ``factors`` int64[2] are
    convolution_factor and wide_factor; as arguments they would be a constant or 32 bits when they are small.
    """
    text = tl.program_id(0)
    labels = tl.program_id(1) * LABEL_BLOCK + tl.arange(0, LABEL_BLOCK)
    real = labels < LABELS
    convolution = tl.zeros([LABEL_BLOCK], tl.int32)
    for begin in range(0, FEATURES, BLOCK):
        places = begin + tl.arange(0, BLOCK)
        feature = tl.load(features + text * FEATURES + places).to(tl.int32)
        weights = tl.load(head + labels[:, None] * FEATURES + places[None, :], mask=real[:, None], other=0)
        convolution += tl.sum(weights.to(tl.int32) * feature[None, :], axis=1)

    first = tl.load(at + text)
    count = tl.load(counts + text)
    words = _widened(wide_words, rows + first, count, labels, LABELS, LABEL_BLOCK, ROWS)
    first += count
    kept = tl.load(at + text + 1) - first
    wide = words + _widened(wide_bigrams, rows + first, kept, labels, LABELS, LABEL_BLOCK, ROWS)

    total = convolution.to(tl.int64) * tl.load(factors)
    total += wide.to(tl.int64) * tl.load(roots + count) * tl.load(factors + 1)
    total += tl.load(bias + labels, mask=real, other=0)
    tl.store(logits + text * LABELS + labels, total, mask=real)


@triton.jit(do_not_specialize=["ranking"])
def rank(  # type: ignore[no-untyped-def]
    logits,
    unit,
    ranking,
    answers,
    LABELS: tl.constexpr,  # noqa: N803
    LABEL_BLOCK: tl.constexpr,  # noqa: N803
):
    """Label, score and the ``ranking`` best of text ``program_id(0)`` into ``answers`` int32[n, 2 + 2 x ranking].

    A row is label, score, the ranking's labels, their scores; scores are the bits of a float32. ``unit`` float64[1].
    The lowest label wins a tie. LABEL_BLOCK is at least LABELS.
    """
    text = tl.program_id(0)
    labels = tl.arange(0, LABEL_BLOCK)
    real = labels < LABELS
    logit = tl.load(logits + text * LABELS + labels, mask=real, other=_NO_LOGIT)
    best = tl.max(logit, axis=0)
    shares = tl.where(real, tl.exp((logit - best).to(tl.float64) * tl.load(unit)), 0.0)
    shares = shares / tl.sum(shares, axis=0)
    row = answers + text * (2 + 2 * ranking)
    label = tl.min(tl.where(logit == best, labels, LABEL_BLOCK), axis=0)
    tl.store(row, label)
    tl.store(row + 1, tl.max(shares, axis=0).to(tl.float32).to(tl.int32, bitcast=True))
    for place in range(ranking):
        largest = tl.max(logit, axis=0)
        label = tl.min(tl.where(logit == largest, labels, LABEL_BLOCK), axis=0)
        share = tl.sum(tl.where(labels == label, shares, 0.0), axis=0)
        tl.store(row + 2 + place, label)
        tl.store(row + 2 + ranking + place, share.to(tl.float32).to(tl.int32, bitcast=True))
        logit = tl.where(labels == label, _NO_LOGIT, logit)
