"""Explanation: what each word and each pair of words of a text adds to the logit of a label.

A folded network adds entries of tables: for each filter those of the one window that the maximum over time chose. So a
logit is a sum, and each of its terms belongs to a word, a pair of words or a bias. The terms are those of
:mod:`headrace.model.integers`. Nothing is estimated, and no other text is answered for comparison.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from headrace.model.artifact import Artifact
from headrace.model.folding import fold_unchecked
from headrace.model.integers import inverse_roots, keys_of, stepped
from headrace.model.network import FIRST_WORD_ROW, PADDING_ROW, UNKNOWN_ROW, SortedKeys, pair_hashes
from headrace.model.words import find_words, hash_strings
from headrace_schemas.records import Explanation, Part, Window

MOST_PARTS = 256
"""The most parts of a kind in an explanation. A text may have 32,768 words, and an answer has to fit into a record."""
_DECIMALS = 6
_ROWS_AT_ONCE = 1024

Whole = NDArray[np.int64]
_Figures = tuple[float, float]
"""For the label, and for the runner-up."""


class _Chosen(NamedTuple):
    """What the filters of one width found in a text.

    ``first`` int64[F] is the first word of the window that each filter chose, ``entries`` int64[width, F] that window's
    entries of the table, word by word. ``active`` bool[F] is false for a filter that the rectifier sets to zero.
    """

    first: Whole
    entries: Whole
    active: NDArray[np.bool_]

    @property
    def width(self) -> int:
        return len(self.entries)


class Explainer:
    """Explains the answers of one artifact. It keeps no folded tables: it folds the rows of a text's own words."""

    def __init__(self, artifact: Artifact) -> None:
        self._network = artifact.network
        self._words = SortedKeys(self._network.word_keys)
        self._bigrams = SortedKeys(self._network.bigram_keys)
        self._head = stepped(self._network.head, self._network.head_steps).astype(np.int64)
        self._roots = inverse_roots(self._network.max_tokens)

    def explain(self, text: str) -> Explanation:
        """Why ``text`` has its label, which is that of the largest logit, and not that of the second largest."""
        network = self._network
        words = find_words(text, network.max_tokens, network.hashing)
        hashes, _ = hash_strings([text], network.max_tokens, network.hashing)
        rows = np.maximum(self._words.places(keys_of(hashes)) + FIRST_WORD_ROW, UNKNOWN_ROW)
        pairs = self._bigrams.places(keys_of(pair_hashes(hashes)))
        kept = np.flatnonzero(pairs >= 0)
        words_table = network.wide_words, network.wide_word_steps, rows
        pairs_table = network.wide_bigrams, network.wide_bigram_steps, pairs[kept]
        chosen = self._choose(rows)

        # Python's integers: a logit may have 62 bits.
        features = np.concatenate([one.entries.sum(axis=0) for one in chosen]) + network.filter_bias
        active = np.concatenate([one.active for one in chosen])
        convolved = (self._head @ np.where(active, features, 0)).tolist()
        widened = (_summed(*words_table) + _summed(*pairs_table)).tolist()
        root = int(self._roots[len(rows)])
        logits = [
            of_head * network.convolution_factor + of_wide * root * network.wide_factor + bias
            for of_head, of_wide, bias in zip(convolved, widened, network.bias.tolist(), strict=True)
        ]
        # Of equal logits the lowest index is the label, as in every backend.
        shown = sorted(range(len(logits)), key=lambda label: -logits[label])[:2]

        head = self._head[shown]
        of_head, of_wide = network.convolution_factor * network.unit, root * network.wide_factor * network.unit
        in_words = of_head * _by_word(chosen, head, len(rows)) + of_wide * _columns(*words_table, shown)
        bias = of_head * (head[:, active] @ network.filter_bias[active]) + network.unit * network.bias[shown]
        windows = list(_windows(chosen, head)) if words else []
        told_words, word_rest = _strongest(in_words)
        told_pairs, pair_rest = _strongest(of_wide * _columns(*pairs_table, shown))
        told_windows, _ = _strongest(
            of_head * np.array([sums for *_, sums in windows], np.float64).reshape(-1, len(shown))
        )
        logit = np.array([logits[label] * network.unit for label in shown])
        (logit_for, against_logit), (bias_for, against_bias), (rest, against_rest) = _figures(
            np.stack([logit, bias, word_rest + pair_rest])
        )
        last = len(words) - 1
        return Explanation(
            label=network.labels[shown[0]],
            logit=logit_for,
            bias=bias_for,
            words=tuple(Part(words[place].begin, words[place].end, *parts) for place, parts in told_words),
            pairs=tuple(
                Part(words[kept[place]].begin, words[kept[place] + 1].end, *parts) for place, parts in told_pairs
            ),
            windows=tuple(
                Window(words[first].begin, words[min(first + width - 1, last)].end, filters, *parts)
                for (first, width, filters, _), parts in ((windows[place], parts) for place, parts in told_windows)
            ),
            rest=rest,
            against=network.labels[shown[1]] if len(shown) > 1 else None,
            against_logit=against_logit,
            against_bias=against_bias,
            against_rest=against_rest,
        )

    def _choose(self, rows: Whole) -> list[_Chosen]:
        """What the filters of each width choose of a text whose words have the ``rows``."""
        network = self._network
        padded = np.concatenate([rows, np.full(max(0, max(network.widths) - len(rows)), PADDING_ROW)])
        own, places = np.unique(padded, return_inverse=True)
        few = replace(network, words=network.words[own], word_steps=network.word_steps[own])
        tables = fold_unchecked(few)
        chosen = []
        begin = 0
        for number, width in enumerate(network.widths):
            # A text of n words has max(n, width) - width + 1 windows; only a text shorter than the width sees padding.
            windows = max(len(rows), width) - width + 1
            sums = np.zeros((windows, network.filters_a_width), np.int32)
            for tap in range(width):
                sums += tables[places[tap : tap + windows], begin + tap]
            first = np.argmax(sums, axis=0)
            filters = np.arange(network.filters_a_width)
            taken = [tables[places[first + tap], begin + tap, filters] for tap in range(width)]
            entries = np.stack(taken).astype(np.int64)
            bias = network.filter_bias[number * len(filters) :][: len(filters)]
            chosen.append(_Chosen(first, entries, entries.sum(axis=0) + bias > 0))
            begin += width
        return chosen


@lru_cache(maxsize=2)
def explainer_of(artifact: Artifact) -> Explainer:
    """The explainer of an artifact, kept for two of them: a champion and its successor."""
    return Explainer(artifact)


def _summed(values: NDArray[np.int8], steps: NDArray[np.uint8], rows: Whole) -> Whole:
    """``int64[labels]``: the sum of stepped ``rows``, some at a time: there may be thousands of words and of labels."""
    total = np.zeros(values.shape[1], np.int64)
    for begin in range(0, len(rows), _ROWS_AT_ONCE):
        some = rows[begin : begin + _ROWS_AT_ONCE]
        total += stepped(values[some], steps[some]).sum(axis=0, dtype=np.int64)
    return total


def _columns(values: NDArray[np.int8], steps: NDArray[np.uint8], rows: Whole, labels: Sequence[int]) -> Whole:
    """``int64[rows, labels]``: some columns of stepped ``rows``."""
    return stepped(values[rows[:, None], np.array(labels)], steps[rows]).astype(np.int64)


def _of_width(chosen: Sequence[_Chosen], head: Whole) -> Iterator[tuple[_Chosen, Whole]]:
    """Each width's choice and its part of ``head`` int64[labels, widths x F], zero where a filter is not active."""
    for one, columns in zip(chosen, np.split(head, len(chosen), axis=1), strict=True):
        yield one, np.where(one.active, columns, 0)


def _by_word(chosen: Sequence[_Chosen], head: Whole, count: int) -> Whole:
    """``int64[count, labels]``: what the convolution adds for each of a text's ``count`` words."""
    widest = max(one.width for one in chosen)
    parts = np.zeros((count + widest, len(head)), np.int64)
    for one, columns in _of_width(chosen, head):
        for tap in range(one.width):
            np.add.at(parts, one.first + tap, (one.entries[tap] * columns).T)
    # Behind the last word there is padding, whose entries are zero.
    return parts[:count]


def _windows(chosen: Sequence[_Chosen], head: Whole) -> Iterator[tuple[int, int, int, Whole]]:
    """Each window that a filter chose: first word, width, how many active filters chose it, and int64[labels]."""
    for one, columns in _of_width(chosen, head):
        sums = one.entries.sum(axis=0) * columns
        for first in np.unique(one.first[one.active]).tolist():
            here = one.active & (one.first == first)
            yield first, one.width, int(here.sum()), sums[:, here].sum(axis=1)


def _strongest(parts: NDArray[np.floating]) -> tuple[list[tuple[int, _Figures]], NDArray[np.floating]]:
    """The MOST_PARTS of ``parts`` [n, labels] that tell the labels apart most, with their places and in their order;
    and the sum of the others.
    """
    weights = np.abs(parts[:, 0] - parts[:, 1]) if parts.shape[1] > 1 else np.abs(parts[:, 0])
    places = np.sort(np.argsort(-weights, kind="stable")[:MOST_PARTS])
    rest = np.delete(parts, places, axis=0).sum(axis=0)
    return list(zip(places.tolist(), _figures(parts[places]), strict=True)), rest


def _figures(values: NDArray[np.floating]) -> list[_Figures]:
    """Each row of ``values`` [n, labels] rounded; 0 for the runner-up where there is none."""
    rounded = np.round(values, _DECIMALS)
    if values.shape[1] == 1:
        rounded = np.concatenate([rounded, np.zeros_like(rounded)], axis=1)
    return [(first, second) for first, second in rounded.tolist()]
