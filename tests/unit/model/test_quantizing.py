"""Quantizing: rounding within half a step, sums that fit, and the same bits for the same network."""

import math
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.model.integers import MAX_DIMENSIONS, MAX_LOGIT, inverse_roots
from headrace.model.network import keep_rows
from headrace.model.quantizing import Bits, quantize
from tests.support.networks import random_network


@pytest.mark.parametrize("bits", [4, 8])
def test_words_and_filters_are_within_half_a_step_of_what_was_trained(bits: int) -> None:
    network = random_network(1)
    quantized = quantize(network, Bits(bits, bits))
    steps = quantized.word_steps[:, None] * quantized.word_unit
    assert np.all(np.abs(quantized.words * steps - network.words) <= steps * 0.5001)
    for place, (found, trained) in enumerate(zip(quantized.filters, network.filters, strict=True)):
        steps = quantized.filter_scales[place * 5 : (place + 1) * 5, None, None]
        assert np.all(np.abs(found * steps - trained) <= steps * 0.5001)


@pytest.mark.parametrize(("bits", "lowest"), [(4, -7), (8, -127)])
def test_the_lowest_integer_is_never_used(bits: int, lowest: int) -> None:
    network = random_network(4)
    negative = replace(
        network,
        words=-np.abs(network.words),
        filters=tuple(-np.abs(f) for f in network.filters),
        wide_words=-np.abs(network.wide_words),
    )
    quantized = quantize(negative, Bits(bits, bits))
    assert quantized.words.min() == quantized.wide_words.min() == lowest
    assert all(filters.min() == lowest for filters in quantized.filters)


@pytest.mark.parametrize("bits", [4, 8])
def test_each_rows_step_is_the_least_that_holds_its_values(bits: int) -> None:
    network = random_network(8)
    quantized = quantize(network, Bits(bits, bits))
    limit = 2 ** (bits - 1) - 1
    assert quantized.word_steps.max() == 255
    largest = np.abs(network.words).max(axis=1)
    steps = quantized.word_steps.astype(np.int64)
    assert np.all(largest <= steps * limit * quantized.word_unit * 1.0001)
    assert np.all(largest[1:] > (steps[1:] - 1) * limit * quantized.word_unit)


def test_of_two_words_with_one_key_the_more_frequent_is_kept() -> None:
    network = random_network(3)
    hashes = network.word_hashes.copy()
    hashes[5] = hashes[2] ^ np.uint64(1)
    quantized = quantize(replace(network, word_hashes=hashes))
    expected = quantize(keep_rows(network, np.delete(np.arange(len(hashes)), 5), np.arange(len(network.bigram_hashes))))
    assert np.array_equal(quantized.word_keys, expected.word_keys)
    assert np.array_equal(quantized.words, expected.words)
    assert np.array_equal(quantized.wide_words, expected.wide_words)


def test_the_same_network_gives_the_same_integers() -> None:
    first, second = quantize(random_network(9)), quantize(random_network(9))
    for field in fields(first):
        one, other = getattr(first, field.name), getattr(second, field.name)
        if isinstance(one, tuple) and isinstance(one[0], np.ndarray):
            assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
        else:
            assert np.array_equal(one, other), field.name


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    scale=st.sampled_from([1e-12, 1e-3, 1.0, 1e3, 1e12]),
    blend=st.sampled_from([0.0, 1e-6, 0.5, 1.0]),
    bias=st.sampled_from([0.0, 1.0, 1e6, -1e6]),
    bits=st.builds(Bits, st.sampled_from([4, 8]), st.sampled_from([4, 8])),
)
def test_a_network_of_any_size_of_weights_fits_its_integers(
    seed: int, scale: float, blend: float, bias: float, bits: Bits
) -> None:
    network = random_network(seed, scale=scale, blend=blend)
    moved = replace(network, filter_bias=network.filter_bias + np.float32(bias * scale))
    # quantize itself raises BoundsError when a sum could leave its type.
    quantized = quantize(moved, bits)
    assert int(np.abs(quantized.bias).max()) < MAX_LOGIT


def test_a_network_of_zeros_answers_with_its_bias() -> None:
    network = random_network(2, scale=0.0)
    bias = np.array([0.5, 2.0, -1.0], np.float32)
    quantized = quantize(replace(network, head_bias=bias, wide_bias=bias))
    np.testing.assert_allclose(quantized.bias * quantized.unit, bias, rtol=1e-6)


@pytest.mark.parametrize("field", ["words", "filter_bias", "head", "wide_bigrams"])
def test_a_value_that_is_not_finite_is_refused_by_its_name(field: str) -> None:
    network = random_network(2)
    broken = getattr(network, field).copy()
    broken.flat[-1] = math.nan
    with pytest.raises(ValueError, match=rf"{field} holds a value that is not finite"):
        quantize(replace(network, **{field: broken}))


def test_more_dimensions_than_the_integers_hold_are_refused() -> None:
    with pytest.raises(ValueError, match="1041"):
        quantize(random_network(1, dimensions=MAX_DIMENSIONS + 1))


def test_inverse_roots_are_the_nearest_integers() -> None:
    roots = inverse_roots(5000)
    assert roots[0] == roots[1] == 65536
    for n in range(1, 5001):
        assert abs(int(roots[n]) - 65536 / math.sqrt(n)) <= 0.5 + 1e-9
