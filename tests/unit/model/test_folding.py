"""Folding is exact: the tables are those that 64-bit integers and fractions give."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headrace.model.folding import FoldingError, columns_of, fold, fold_unchecked, products
from headrace.model.integers import MAX_DIMENSIONS, BoundsError, QuantizedNetwork, largest_convolution, largest_features
from headrace.model.quantizing import quantize
from tests.support.networks import random_network


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 2**32 - 1), dimensions=st.integers(1, MAX_DIMENSIONS), extreme=st.booleans())
@example(0, MAX_DIMENSIONS, True)
def test_products_are_those_of_64_bit_integers(seed: int, dimensions: int, extreme: bool) -> None:
    rng = np.random.default_rng(seed)

    def integers(*shape: int) -> np.ndarray:
        # With all values at a limit of one sign the sums are the largest there can be.
        values = np.full(shape, 127) if extreme else rng.integers(-127, 128, shape)
        return values.astype(np.int8)

    words, columns = integers(5, dimensions), integers(dimensions, 7)
    expected = words.astype(np.int64) @ columns.astype(np.int64)
    for rows, exact in products(words, columns):
        assert np.array_equal(exact.astype(np.int64), expected[rows])


def test_more_dimensions_than_float32_adds_exactly_are_refused() -> None:
    wide = np.zeros((2, MAX_DIMENSIONS + 1), np.int8)
    with pytest.raises(BoundsError, match="1041 dimensions"):
        list(products(wide, wide.T))


def entry(network: QuantizedNetwork, row: int, place: int, tap: int, filter_index: int) -> int:
    """One entry of the tables by the definition, in Python's integers and floats."""
    filters = network.filters[place]
    exact = sum(
        int(word) * int(weight) for word, weight in zip(network.words[row], filters[filter_index, tap], strict=True)
    )
    at = place * len(filters) + filter_index
    ratio = float(network.filter_scales[at]) / float(network.table_scales[at])
    return max(-127, min(127, round(exact * (int(network.word_steps[row]) * network.word_unit) * ratio)))


@pytest.mark.parametrize("widths", [(2, 3, 4), (1, 5), (3,)])
def test_each_entry_is_the_scaled_product_of_its_word_and_its_tap(widths: tuple[int, ...]) -> None:
    network = quantize(random_network(5, widths=widths, filters=3, dimensions=6))
    tables = fold(network)
    assert tables.shape == (len(network.words), sum(widths), 3)
    for row in range(len(network.words)):
        column = 0
        for place, width in enumerate(widths):
            for tap in range(width):
                assert tables[row, column].tolist() == [entry(network, row, place, tap, f) for f in range(3)]
                column += 1


def test_columns_are_the_filters_tap_by_tap() -> None:
    first, second = np.arange(24).reshape(3, 2, 4), np.arange(60, 96).reshape(3, 3, 4)
    columns = columns_of([first.astype(np.int8), second.astype(np.int8)])
    assert columns.shape == (4, 3 * 5)
    assert columns[:, 0:3].T.tolist() == first[:, 0].tolist()
    assert columns[:, 12:15].T.tolist() == second[:, 2].tolist()


def test_the_padding_row_adds_nothing_and_the_largest_entry_is_127() -> None:
    tables = fold(quantize(random_network(1)))
    assert not tables[0].any()
    assert tables.min() >= -127
    # By each filter's scale its largest entry, over all its taps, is 127.
    widths, filters = (2, 3, 4), 5
    ends = np.cumsum(widths)
    for width, end in zip(widths, ends, strict=True):
        largest = np.abs(tables[:, end - width : end].astype(int)).max(axis=(0, 1))
        assert largest.tolist() == [127] * filters


def test_entries_beyond_the_scale_are_cut_at_127() -> None:
    network = quantize(random_network(1))
    tables = fold_unchecked(replace(network, table_scales=network.table_scales / 8))
    assert (tables.min(), tables.max()) == (-127, 127)


def test_tables_that_the_artifact_was_not_made_with_are_refused() -> None:
    network = quantize(random_network(2))
    words = network.words.copy()
    words[3, 0] ^= 64
    with pytest.raises(FoldingError, match="SHA-256"):
        fold(replace(network, words=words))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head": 127, "head_steps": 255, "filter_bias": 16384}, "head's sums"),
        ({"filter_bias": 2**30}, "filter biases reach 1073741824"),
        ({"convolution_factor": 2**60}, "a logit could reach"),
        ({"wide_factor": -(2**61)}, "a logit could reach"),
        ({"bias": 2**62}, "a logit could reach"),
    ],
)
def test_integers_that_could_overflow_are_refused(change: dict[str, int], message: str) -> None:
    network = quantize(random_network(2, filters=64))
    hostile = {
        name: value if isinstance(getattr(network, name), int) else np.full_like(getattr(network, name), value)
        for name, value in change.items()
    }
    with pytest.raises(BoundsError, match=message):
        fold(replace(network, **hostile))


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32 - 1))
def test_no_window_exceeds_its_filters_bound(seed: int) -> None:
    network = quantize(random_network(seed))
    tables = fold(network)
    bounds = largest_features(tables, network.widths, network.filter_bias)
    rows = np.random.default_rng(seed).integers(0, len(tables), (200, max(network.widths)))
    tap = 0
    for place, width in enumerate(network.widths):
        sums = sum(tables[rows[:, k], tap + k].astype(int) for k in range(width))
        at = slice(place * 5, (place + 1) * 5)
        assert np.all(np.maximum(sums + network.filter_bias[at], 0) <= bounds[at])
        tap += width
    exact = max(
        sum(Fraction(abs(int(weight))) * int(bound) for weight, bound in zip(row, bounds, strict=True))
        for row in network.head
    )
    assert largest_convolution(network.head, bounds) == exact
